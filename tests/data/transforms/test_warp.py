# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The random warp: image and label in register, a plain resize when it is off, no flips where sides have names."""

import cv2
import numpy as np
import pytest

from monai_effsam.data.augmentation import AUGMENTATIONS, Augmentation
from monai_effsam.data.transforms import RandFrameWarpd

STILL = Augmentation(flip_x=False, rotate=0, zoom=1, stretch=1, shift=0)


def blob(height=90, width=120, centre=(70, 40), radius=14):
    """A soft-edged disk as picture, its inside as label."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x - centre[0], y - centre[1])
    grey = np.clip((radius + 1 - distance) / 2 * 255, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2), (distance < radius).astype(np.uint8)


def centre_of(weights):
    y, x = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


def warp(ranges, seed, prob=1.0, size=96, **blob_options):
    image, label = blob(**blob_options)
    step = RandFrameWarpd(("image", "label"), size, ranges, prob=prob)
    step.set_random_state(seed=seed)
    return step({"image": image, "label": label})


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("modality", AUGMENTATIONS)
def test_picture_and_label_stay_in_register(modality, seed):
    out = warp(AUGMENTATIONS[modality], seed, size=192, height=180, width=180, centre=(90, 80), radius=30)
    shift = centre_of(out["image"][..., 0].astype(float)) - centre_of(out["label"].astype(float))
    assert np.abs(shift).max() < 0.15


@pytest.mark.parametrize(("ranges", "prob"), [(STILL, 1.0), (AUGMENTATIONS["fundus"], 0.0)])
def test_without_variation_it_is_a_plain_resize(ranges, prob):
    out = warp(ranges, 0, prob=prob, size=60)
    image, label = blob()
    plain = cv2.resize(image, (60, 60), interpolation=cv2.INTER_LINEAR)
    assert np.abs(out["image"].astype(int) - plain).max() <= 4  # OpenCV's warp counts in 1/32 pixel
    exact = cv2.resize(label, (60, 60), interpolation=cv2.INTER_NEAREST_EXACT)
    assert (out["label"] != exact).mean() < 0.005
    assert np.abs(centre_of(out["label"] * 1.0) - centre_of(exact * 1.0)).max() < 0.1


def test_the_longest_side_fills_the_frame_and_the_rest_stays_empty():
    image, label = np.maximum(blob()[0], 1), blob()[1]  # 90 x 120, nowhere black
    step = RandFrameWarpd(("image", "label"), 60, AUGMENTATIONS["fundus"], prob=0.0, resize="longest")
    out = step({"image": image, "label": label})
    assert out["image"].shape == (60, 60, 3)
    assert out["image"][:44].all()
    assert not out["image"][46:].any()
    plain = cv2.resize(image, (60, 45), interpolation=cv2.INTER_LINEAR)
    assert np.abs(out["image"][:44].astype(int) - plain[:44]).max() <= 4


def test_picture_of_the_frames_size_passes_unchanged():
    image, label = blob(96, 96)
    out = RandFrameWarpd(("image", "label"), 96, STILL)({"image": image, "label": label})
    assert (out["image"] == image).all()
    assert (out["label"] == label).all()


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_sides_with_names_are_never_mirrored(modality):
    assert min(determinants(modality)) > 0


def test_sides_without_names_are_mirrored_about_half_of_the_time():
    assert 0.35 < np.mean(np.array(determinants("xray")) < 0) < 0.65


def determinants(modality):
    step = RandFrameWarpd("image", 32, AUGMENTATIONS[modality])
    step.set_random_state(seed=0)
    found = []
    for _ in range(100):
        step.randomize()
        found.append(np.linalg.det(step._turn))
    return found


def test_drawn_numbers_stay_within_their_ranges():
    ranges = AUGMENTATIONS["mr"]
    step = RandFrameWarpd("image", 32, ranges)
    step.set_random_state(seed=0)
    for _ in range(100):
        step.randomize()
        largest, smallest = np.linalg.svd(step._turn)[1]
        angle = np.degrees(np.arctan2(step._turn[1, 0], step._turn[0, 0]))
        assert abs(angle) <= ranges.rotate
        assert largest <= ranges.zoom * ranges.stretch**0.5
        assert smallest >= 1 / (ranges.zoom * ranges.stretch**0.5)
        assert np.abs(step._shift).max() <= ranges.shift


def test_a_bend_moves_picture_and_label_alike_and_differently_from_place_to_place():
    ranges = Augmentation(flip_x=False, rotate=0, zoom=1, stretch=1, shift=0, elastic=0.2)
    moved = []
    for centre in ((50, 50), (140, 130)):
        out = warp(ranges, 3, size=192, height=192, width=192, centre=centre, radius=20)
        found = centre_of(out["label"] * 1.0)
        assert np.abs(centre_of(out["image"][..., 0] * 1.0) - found).max() < 0.3
        moved.append(found - centre)
    assert np.abs(moved[0] - moved[1]).max() > 2


def test_a_bend_without_strength_is_the_affine_map():
    ranges = Augmentation(flip_x=False, elastic=1e-9)
    bent, straight = warp(ranges, 5), warp(Augmentation(flip_x=False), 5)
    assert (
        np.abs(bent["image"].astype(int) - straight["image"]).max() <= 8
    )  # maps of 1/32 pixel, rounded apart
    assert (bent["label"] != straight["label"]).mean() < 0.002


def test_shift_moves_by_a_fraction_of_the_side():
    step = RandFrameWarpd(("image", "label"), 100, STILL)
    step.randomize = lambda data=None: setattr(step, "_shift", np.array([0.25, -0.1]))
    image, label = blob(100, 100, centre=(50, 50))
    out = step({"image": image, "label": label})
    np.testing.assert_allclose(
        centre_of(out["label"] * 1.0), centre_of(label * 1.0) + np.array([25, -10]), atol=1e-6
    )


def test_labels_keep_their_values():
    _, label = blob()
    out = RandFrameWarpd("label", 50, AUGMENTATIONS["endoscopy"]).set_random_state(seed=1)(
        {"label": label * 7}
    )
    assert set(np.unique(out["label"])) == {0, 7}


def test_what_goes_in_is_left_as_it_was():
    image, label = blob()
    data = {"image": image, "label": label}
    RandFrameWarpd(("image", "label"), 50, AUGMENTATIONS["fundus"])(data)
    assert data["image"] is image
    assert (image == blob()[0]).all()
