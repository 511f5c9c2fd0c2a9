# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Soft tissue fills the grey range, whatever the darkest and brightest pixel were; windowed pictures stay."""

import numpy as np
import pytest

from monai_effsam.data.placement import apply_spec, toned
from monai_effsam.data.tissue import stretch_tissue
from monai_effsam.specs import ImageSpec


def abdomen(low, high, outside=-1000.0):
    """A slice in Hounsfield units (air, fat, muscle, organ, bone), scaled from `low`..`high` to 0..255."""
    y, x = np.mgrid[:200, :240]
    hounsfield = np.full((200, 240), -1000.0)
    hounsfield[np.hypot((x - 120) / 1.2, y - 100) > 99] = outside
    for radius, value in ((85, -100.0), (70, 50.0)):
        hounsfield[np.hypot((x - 120) / 1.2, y - 100) < radius] = value
    hounsfield[np.hypot(x - 90, y - 90) < 25] = 110.0
    hounsfield[np.hypot(x - 120, y - 150) < 12] = 700.0
    grey = np.clip((hounsfield - low) / (high - low) * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2)


def organ_contrast(rgb):
    """Grey values between the organ and the muscle beside it."""
    return int(rgb[90, 90, 0]) - int(rgb[60, 130, 0])


@pytest.mark.parametrize(
    ("low", "high", "outside"),
    [(-1000, 1500, -1000), (-1000, 3000, -1000), (-3024, 1500, -3024), (-2048, 1200, -2048)],
)
def test_the_contrast_of_organs_grows_whatever_the_extremes_of_the_slice_are(low, high, outside):
    slice_ = abdomen(low, high, outside)
    out = stretch_tissue(slice_)
    assert organ_contrast(slice_) < 8
    assert organ_contrast(out) > 40
    assert out[90, 90, 0] < 255  # and the organ itself is not cut off
    assert out[100, 42, 0] > out[5, 120, 0]  # fat stays above air


def test_slices_of_different_scaling_come_to_look_alike():
    few, many = (stretch_tissue(abdomen(-1000, high)).astype(int) for high in (1200, 2000))
    assert np.abs(few - many).mean() < 12


def test_a_picture_stored_through_a_soft_tissue_window_stays_as_it_is():
    windowed = abdomen(-160, 240)
    assert stretch_tissue(windowed) is windowed


def test_a_second_stretch_changes_nothing():
    once = stretch_tissue(abdomen(-1000, 2000))
    np.testing.assert_array_equal(stretch_tissue(once), once)


@pytest.mark.parametrize("value", [0, 127, 255])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (64, 64)])
def test_flat_pictures_pass(value, size):
    flat = np.full((*size, 3), value, np.uint8)
    assert stretch_tissue(flat).shape == flat.shape
    assert len(np.unique(stretch_tissue(flat))) == 1


def test_the_spec_decides():
    slice_ = abdomen(-1000, 2000)
    plain, tissue = ImageSpec(64), ImageSpec(64, intensity="tissue")
    assert toned(slice_, plain) is slice_
    stretched, placement = apply_spec(slice_, tissue)
    expected, same = apply_spec(stretch_tissue(slice_), plain)
    np.testing.assert_array_equal(stretched, expected)
    assert placement == same
    assert ImageSpec.from_json(tissue.to_json()) == tissue
