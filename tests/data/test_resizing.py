# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Interpolation rules against the libraries that they stand for."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from monai_effsam.data.resizing import resized
from monai_effsam.networks.foreign import import_segment_anything

SIZES = [
    ((53, 62), (64, 64)),
    ((97, 61), (32, 32)),
    ((10, 200), (32, 32)),
    ((1, 5), (8, 8)),
    ((7, 1), (3, 4)),
]


def noise(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def with_scipy(rgb, size):
    """scikit-image's recipe: smooth what shrinks, cubic spline on pixel centres, clip to the picture's range."""
    factors = np.array([rgb.shape[0] / size[0], rgb.shape[1] / size[1], 1.0])
    smooth = ndimage.gaussian_filter(rgb.astype(float), np.maximum(0, (factors - 1) / 2), mode="mirror")
    out = ndimage.zoom(smooth, 1 / factors, order=3, mode="mirror", grid_mode=True)
    return np.clip(out, rgb.min(), rgb.max()).astype(np.uint8)


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_spline_equals_scipys(source, size):
    rgb = noise(*source)
    difference = resized(rgb, size, "spline").astype(int) - with_scipy(rgb, size)
    assert abs(difference).max() <= 1  # a value just below a whole number may be cut either way
    assert (difference != 0).mean() < 1e-3


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_pillow_is_what_segment_anything_does(source, size):
    rgb = noise(*source)
    import_segment_anything()
    from segment_anything.utils.transforms import ResizeLongestSide

    transform = ResizeLongestSide(max(size))
    expected = transform.apply_image(rgb)
    np.testing.assert_array_equal(resized(rgb, expected.shape[:2], "pillow"), expected)


def test_area_is_opencvs_both_ways():
    rgb = noise(20, 30)
    for size in ((10, 7), (50, 64)):
        expected = cv2.resize(rgb, (size[1], size[0]), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(resized(rgb, size, "area"), expected)


def test_auto_is_area_to_shrink_and_bilinear_to_enlarge():
    rgb = noise(20, 30)
    for size, method in (
        ((10, 7), cv2.INTER_AREA),
        ((40, 60), cv2.INTER_LINEAR),
        ((10, 60), cv2.INTER_LINEAR),
    ):
        expected = cv2.resize(rgb, (size[1], size[0]), interpolation=method)
        np.testing.assert_array_equal(resized(rgb, size, "auto"), expected)


@pytest.mark.parametrize("rule", ["auto", "area", "pillow", "spline"])
def test_a_flat_picture_stays_flat(rule):
    found = resized(np.full((13, 17, 3), 201, np.uint8), (40, 9), rule)
    assert found.shape == (40, 9, 3)
    assert found.min() >= 200  # the spline may cut 201 - 1e-14
    assert found.max() == 201
