# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Random tones and degradations: within range, repeatable, pictures only."""

from types import SimpleNamespace

import numpy as np
import pytest

from monai_effsam.data.augmentation import AUGMENTATIONS, Augmentation
from monai_effsam.data.transforms import RandDegraded, RandToned

PICTURE = np.random.RandomState(0).randint(0, 256, (24, 30, 3)).astype(np.uint8)
STILL = Augmentation(gain=0, offset=0, gamma=1, colour=0)


def test_no_range_no_change():
    assert (RandToned("image", STILL, prob=1)({"image": PICTURE})["image"] == PICTURE).all()


def test_no_chance_no_change():
    data = {"image": PICTURE}
    assert RandToned("image", AUGMENTATIONS["fundus"], prob=0)(data)["image"] is PICTURE
    assert RandDegraded("image", prob=0)(data)["image"] is PICTURE


def test_gain_and_offset_by_hand():
    step = RandToned("image", Augmentation(gain=0.5, offset=0.2, gamma=1), prob=1)
    step.R = SimpleNamespace(
        rand=lambda: 0, uniform=lambda low, high, size=None: high if size is None else np.zeros(3)
    )
    grey = np.full((1, 1, 3), 153, np.uint8)  # 0.6: (0.6 - 0.5) * 1.5 + 0.5 + 0.2 = 0.85
    assert step({"image": grey})["image"].tolist() == [[[217, 217, 217]]]


def test_grey_stays_grey_without_a_colour_range():
    grey = np.repeat(PICTURE[..., :1], 3, 2)
    out = RandToned("image", AUGMENTATIONS["mr"], prob=1).set_random_state(seed=3)({"image": grey})["image"]
    assert (out == out[..., :1]).all()
    assert not (out == grey).all()


@pytest.mark.parametrize("seed", range(8))
def test_degraded_pictures_stay_pictures_and_can_be_repeated(seed):
    out, again = (
        RandDegraded("image", prob=0.7).set_random_state(seed=seed)({"image": PICTURE})["image"]
        for _ in range(2)
    )
    assert out.shape == PICTURE.shape
    assert out.dtype == np.uint8
    assert (out == again).all()
    assert np.abs(out.astype(float).mean() - PICTURE.mean()) < 8


def test_all_three_degradations_change_a_picture():
    out = RandDegraded("image", prob=1).set_random_state(seed=0)({"image": PICTURE})["image"]
    assert (out != PICTURE).mean() > 0.5
