# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Slices from files, held-out groups, and batches that are a pure function of (seed, rank, step)."""

import cv2
import numpy as np
import pytest
import torch
from monai.utils import set_determinism

from monai_effsam.data.balanced import BalancedBatches, collate, fitted
from monai_effsam.data.sets import Case
from monai_effsam.data.slices import LabelledSlice, hold_out, load_slices
from monai_effsam.data.strata import Strata
from monai_effsam.errors import DataError, UnknownNameError
from monai_effsam.specs import ImageSpec

SPECS = {"endoscopy": ImageSpec(32), "ultrasound": ImageSpec(64)}
MODALITIES = ("endoscopy", "ultrasound")


def slices(count=4, modality="endoscopy", stratum="polyps", filled=True, known=(True,), size=40):
    random = np.random.RandomState(len(stratum) + count)
    label = np.zeros((size, size), np.uint8)
    label[10:20, 10:20] = filled
    return [
        LabelledSlice(
            random.randint(0, 256, (size, size, 3)).astype(np.uint8),
            label,
            modality,
            stratum,
            f"{stratum}{i}",
            known,
        )
        for i in range(count)
    ]


def batches(own=None, **options):
    own = own or [*slices(), *slices(4, "ultrasound", "scans", known=(True, False))]
    return BalancedBatches(
        own, SPECS, MODALITIES, **{"batch_area": 3 * 32 * 32, "epoch_length": 4, **options}
    )


@pytest.fixture
def write(tmp_path):
    """A function: picture and mask arrays -> case."""

    def make(picture, mask, values=None, name="a", modality="endoscopy"):
        paths = tmp_path / f"{name}.png", tmp_path / f"{name}_mask.png"
        for path, content in zip(paths, (picture, mask), strict=True):
            cv2.imwrite(str(path), content)
        return Case(*paths, modality, values or {1: "polyp"}, name, "train", "own")

    return make


def centre_of(weights):
    y, x = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum(dtype=float)


# Slices from files


def test_values_of_a_set_become_places_of_the_table(write):
    mask = np.zeros((20, 30), np.uint8)
    mask[0, :2] = 9, 4
    case = write(
        np.zeros((20, 30, 3), np.uint8), mask, {9: "fetal_head", 4: "breast_lesion"}, modality="ultrasound"
    )
    (one,) = load_slices([case], SPECS)
    assert one.label[0, :3].tolist() == [2, 1, 0]
    assert (one.image.shape, one.stratum, one.case, one.known) == ((20, 30, 3), "own", "a", (True, True))


def test_large_pictures_are_kept_a_quarter_larger_than_the_frame(write):
    (one,) = load_slices([write(np.zeros((200, 100, 3), np.uint8), np.zeros((200, 100), np.uint8))], SPECS)
    assert one.image.shape == (40, 20, 3)
    assert one.label.shape == (40, 20)


def test_shrunk_label_stays_in_register_with_its_picture(write):
    mask = np.zeros((300, 300), np.uint8)
    mask[60:180, 90:240] = 1
    (one,) = load_slices([write(np.repeat(mask[..., None] * 255, 3, 2), mask)], SPECS)
    assert np.abs(centre_of(one.image[..., 0]) - centre_of(one.label)).max() < 0.1


def test_a_value_without_a_name_is_refused(write):
    mask = np.full((8, 8), 255, np.uint8)
    with pytest.raises(
        DataError, match=r"holds the value 255, expected 0 or one of \[1\].*--target NAME=VALUE"
    ):
        load_slices([write(np.zeros((8, 8, 3), np.uint8), mask)], SPECS)


def test_a_mask_of_another_size_is_refused(write):
    with pytest.raises(DataError, match=r"a_mask.png: mask has 1x8x9 pixels.*Draw it on the same image"):
        load_slices([write(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9), np.uint8))], SPECS)


def test_a_target_outside_the_table_is_refused(write):
    with pytest.raises(UnknownNameError, match="target 'ulcer' is unknown, expected one of polyp"):
        load_slices([write(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), {1: "ulcer"})], SPECS)


# Held out


def cases(groups, per_group, name="own"):
    return [
        Case(None, None, "ct", {}, f"g{g}", "train", name) for g in range(groups) for _ in range(per_group)
    ]


def test_held_out_groups_stay_whole_and_make_up_their_share():
    train, held = hold_out(cases(200, 3), 0.2)
    assert {c.group for c in train}.isdisjoint(c.group for c in held)
    assert len(train) + len(held) == 600
    assert 0.13 < len(held) / 600 < 0.27


def test_small_sets_are_not_cut():
    assert hold_out(cases(33, 3), 0.9) == (cases(33, 3), [])
    assert len(hold_out(cases(34, 3), 0.9)[1]) > 70


def test_a_group_is_held_out_whatever_else_is_there():
    few, many = hold_out(cases(100, 1), 0.3)[1], hold_out(cases(150, 1), 0.3)[1]
    assert [c.group for c in many if int(c.group[1:]) < 100] == [c.group for c in few]


# Batches


def same(first, second):
    return (
        first.modality == second.modality
        and torch.equal(first.image, second.image)
        and torch.equal(first.label, second.label)
    )


@pytest.mark.parametrize("is_determined", [True, False], ids=["after set_determinism", "before it"])
def test_a_step_gives_the_same_batch_whenever_it_is_asked_for(is_determined):
    set_determinism(0 if is_determined else None)
    try:
        first, other = batches(), batches()
        want = [first.batch(step) for step in range(3)]
        again = [other.batch(step) for step in (2, 1, 0)][::-1]
    finally:
        set_determinism(None)
    assert [same(a, b) for a, b in zip(want, again, strict=True)] == [True] * 3


def test_augmentation_differs_from_step_to_step_though_all_is_determined():
    set_determinism(0)
    try:
        one = slices(1)
        found = [BalancedBatches(one, SPECS, MODALITIES[:1], batch_area=1).batch(step) for step in range(6)]
    finally:
        set_determinism(None)
    assert len({batch.label.numpy().tobytes() for batch in found}) == 6
    assert len({batch.image.numpy().tobytes() for batch in found}) == 6


@pytest.mark.parametrize("options", [{"seed": 1}, {"rank": 1}])
def test_seed_and_rank_change_the_batches(options):
    assert not any(same(batches().batch(s), batches(**options).batch(s)) for s in range(4))


def test_ranks_share_the_modality_of_a_step():
    ranks = [[batches(rank=r).batch(s).modality for s in range(12)] for r in (0, 1)]
    assert ranks[0] == ranks[1]
    assert set(ranks[0]) == {0, 1}


def test_an_epoch_goes_on_where_the_last_one_ended():
    loader = batches()
    loader.epoch = 2
    assert len(list(loader)) == len(loader) == 4
    assert same(next(iter(loader)), batches().batch(8))


def test_batches_hold_about_the_same_number_of_pixels_but_two_pictures_at_least():
    loader = batches(batch_area=8 * 32 * 32)
    sizes = {b.modality: b for b in (loader.batch(s) for s in range(12))}
    assert sizes[0].image.shape == (8, 3, 32, 32)
    assert sizes[1].image.shape == (2, 3, 64, 64)
    assert sizes[1].label.shape == (2, 2, 64, 64)
    assert sizes[1].known.tolist() == [[True, False]] * 2


def test_warm_steps_see_smaller_pictures():
    loader = batches(slices(4, "ultrasound", "scans", known=(True, True)), warm_steps=2, warm_scale=0.5)
    assert [loader.batch(s).image.shape[-1] for s in range(3)] == [32, 32, 64]


def drawn(own, **options):
    """Share of each stratum of one modality, the strata, and a source of randomness."""
    strata = Strata(own, ["endoscopy"], **options)
    shares = strata.shares["endoscopy"] / strata.weight("endoscopy")
    return dict(zip(strata.names["endoscopy"], shares, strict=True)), strata, np.random.RandomState(0)


def test_shares_are_square_roots_of_the_number_of_cases():
    share, _, _ = drawn([*slices(16, stratum="a"), *slices(4, stratum="b")])
    assert share == pytest.approx({"a": 4 / 6, "b": 2 / 6})


def test_weight_of_a_set_is_divided_among_its_classes_by_cases():
    own = [
        *slices(6, stratum="a/x"),
        *slices(2, stratum="a/y"),
        *slices(2, stratum="b"),
        *slices(2, stratum="c"),
    ]
    share, _, _ = drawn(own, weights={"a": 0.8, "b": 0.2})
    assert share == pytest.approx({"a/x": 0.6, "a/y": 0.2, "b": 0.2})


def test_weight_of_a_class_goes_before_that_of_its_set():
    share, _, _ = drawn(
        [*slices(6, stratum="a/x"), *slices(2, stratum="a/y")], weights={"a/x": 0.1, "a": 0.3}
    )
    assert share == pytest.approx({"a/x": 0.25, "a/y": 0.75})


def test_strata_are_drawn_by_their_shares():
    _, strata, random = drawn([*slices(16, stratum="a"), *slices(4, stratum="b")])
    rows = [strata.draw("endoscopy", random) for _ in range(600)]
    assert 0.62 < np.mean(np.array(rows) < 16) < 0.71


def test_modalities_are_drawn_by_the_shares_of_their_sets():
    loader = batches(weights={"polyps": 0.9, "scans": 0.1})
    shared = [np.random.RandomState([0, step]).choice(2, p=[0.9, 0.1]) for step in range(6)]
    assert [loader.batch(step).modality for step in range(6)] == shared


def test_slices_that_hold_something_are_preferred():
    own = [*slices(4, filled=True), *slices(16, filled=False)]
    _, strata, random = drawn(own, filled=0.8)
    rows = [strata.draw("endoscopy", random) for _ in range(500)]
    assert 0.75 < np.mean(np.array(rows) < 4) < 0.85


@pytest.mark.parametrize("filled", [True, False])
def test_a_set_of_one_kind_is_drawn_evenly(filled):
    _, strata, random = drawn(slices(4, filled=filled))
    assert {strata.draw("endoscopy", random) for _ in range(50)} == {0, 1, 2, 3}


@pytest.mark.parametrize(("own", "weights"), [([], None), (slices(), {"polyp": 1.0})])
def test_batches_of_nothing_are_refused(own, weights):
    with pytest.raises(DataError, match=r"expected at least one\. Give it a share"):
        BalancedBatches(own, SPECS, MODALITIES, weights=weights)


# Arrays to batches


def test_labels_become_one_channel_a_target():
    batch = collate([np.zeros((3, 1, 3), np.float32)], [np.array([[0, 1, 2]], np.uint8)], [(True, False)], 5)
    assert batch.label.tolist() == [[[[0, 1, 0]], [[0, 0, 1]]]]
    assert batch.known.tolist() == [[True, False]]
    assert batch.modality == 5


@pytest.mark.parametrize("resize", ["stretch", "longest"])
def test_fitted_label_lies_where_its_picture_does(resize):
    label = cv2.circle(np.zeros((90, 150), np.uint8), (70, 40), 30, 1, -1)
    one = LabelledSlice(np.repeat(label[..., None] * 255, 3, 2), label, "endoscopy", "a", "a", (True,))
    batch = fitted([one], ImageSpec(64, resize=resize, mean=(0, 0, 0), std=(1, 1, 1)), 0)
    image, found = batch.image[0, 0].numpy(), batch.label[0, 0].numpy()
    assert np.abs(centre_of(image) - centre_of(found)).max() < 0.1
    assert ((image >= 0.5) == found).mean() > 0.98


def test_a_training_picture_is_padded_as_at_inference():
    picture = np.full((30, 60, 3), 200, np.uint8)
    one = LabelledSlice(picture, np.ones((30, 60), np.uint8), "endoscopy", "a", "a", (True,))
    spec = ImageSpec(64, resize="longest", pad_value=-7.0, mean=(0, 0, 0), std=(1, 1, 1))
    loader = BalancedBatches([one], {"endoscopy": spec}, ("endoscopy",), batch_area=8 * 64 * 64)
    batch = loader.batch(0)
    assert (batch.image[:, :, 32:] == -7).all()
    assert (batch.image[:, :, :32] >= 0).all()
    assert batch.label[:, :, 32:].sum() == 0
    assert batch.label[:, :, :32].sum() > 0
