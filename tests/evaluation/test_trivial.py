# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Answers that need no look at the picture."""

from dataclasses import replace

import numpy as np
import pytest

from monai_effsam.data.io import read_image, read_label
from monai_effsam.data.sets import read_set
from monai_effsam.evaluation.robot import RobotUser, jittered_box
from monai_effsam.evaluation.trivial import constant_masks, ellipse_in
from monai_effsam.metrics.overlap import dice_score


def test_an_ellipse_fills_pi_quarters_of_its_box():
    mask = ellipse_in((10, 20, 110, 80), (100, 120))
    assert np.count_nonzero(mask) == pytest.approx(np.pi / 4 * 100 * 60, rel=0.005)
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (10, 109, 20, 79)


def test_a_pixel_wide_box_holds_its_pixel():
    assert np.argwhere(ellipse_in((3, 4, 4, 5), (8, 8))).tolist() == [[4, 3]]


def test_the_only_training_mask_is_given_back(data_root):
    cases = [case for case in read_set(data_root / "busi") if case.split == "train"]
    constant = constant_masks(cases)["breast_lesion"]
    drawn = read_label(cases[0].mask, read_image(cases[0].image)) == 1
    assert constant.files == 1
    assert dice_score(constant.like(drawn.shape), drawn) > 0.95
    larger = constant.like((1, 64, 64))
    assert np.count_nonzero(larger) == pytest.approx(4 * np.count_nonzero(drawn), rel=0.1)


def test_files_without_the_target_teach_nothing(data_root):
    cases = read_set(data_root / "busi")
    normal = [case for case in cases if case.label_class == "normal"]
    trained = [case for case in cases if case.split == "train"]
    assert constant_masks(normal) == {}
    assert constant_masks([*normal, *trained])["breast_lesion"].files == 1


def test_the_level_is_the_best_on_the_training_masks(data_root):
    exact, half = (
        next(c for c in read_set(data_root / "busi") if c.image.stem == n) for n in ("exact", "half")
    )
    twice = constant_masks([exact, exact, half])["breast_lesion"]
    once = constant_masks([exact, half, half])["breast_lesion"]
    small, large = (read_label(case.mask, read_image(case.image)) == 1 for case in (exact, half))
    # twice 8 rows and once 16: the small answer gets (1 + 1 + 2/3) / 3, the large one (2/3 + 2/3 + 1) / 3
    assert dice_score(twice.like(small.shape), small) > 0.9
    assert dice_score(once.like(large.shape), large) > 0.9


def test_volumes_have_a_constant_volume(data_root):
    case = replace(read_set(data_root / "ours")[0], split="train")
    constant = constant_masks([case])["myocardium"]
    drawn = read_label(case.mask, read_image(case.image, modality="mr")) == 3
    assert constant.mean.shape == (16, 64, 64)
    assert dice_score(constant.like(drawn.shape), drawn) > 0.8


@pytest.mark.data
@pytest.mark.slow
def test_real_sets_give_the_measured_values(shared):
    """Kvasir constant .348 and ellipse .818, as measured on the same files by other code; ways to scale move .01."""
    user = RobotUser("box", 0)
    cases = read_set(shared / "data" / "kvasir_seg")
    constant = constant_masks([case for case in cases if case.split == "train"])["polyp"]
    fixed, ellipses = [], []
    for case in cases:
        if case.split == "val":
            drawn = read_label(case.mask, read_image(case.image)) == 1
            fixed.append(dice_score(constant.like(drawn.shape), drawn))
            box = jittered_box(drawn[0], user, user.random(case.image.name))
            ellipses.append(dice_score(ellipse_in(box, drawn[0].shape), drawn[0]))
    assert np.mean(fixed) == pytest.approx(0.348, abs=0.015)
    assert np.mean(ellipses) == pytest.approx(0.818, abs=0.005)
