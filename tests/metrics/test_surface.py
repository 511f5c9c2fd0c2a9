# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Distances between outlines on paper, and against MONAI's own two functions."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from monai_effsam.errors import ShapeError
from monai_effsam.metrics import surface_score

EMPTY = np.zeros((6, 7), bool)
DOT = np.zeros((6, 7), bool)
DOT[1, 1] = True


def blob(shape, seed):
    """A few overlapping blocks."""
    random = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    for _ in range(3):
        low = [int(random.integers(0, side - 3)) for side in shape]
        mask[tuple(slice(a, a + int(random.integers(2, 8))) for a in low)] = True
    return mask


def test_two_dots_lie_as_far_apart_as_they_do():
    other = np.zeros_like(DOT)
    other[4, 5] = True
    assert surface_score(DOT, other).hd95 == pytest.approx(5)
    assert surface_score(DOT, other, spacing=(1, 0.5)).hd95 == pytest.approx(math.hypot(3, 2))
    assert surface_score(DOT, other, tolerance=5).surface_dice == 1
    assert surface_score(DOT, other, tolerance=4.9).surface_dice == 0


def test_a_shifted_edge_is_forgiven_within_the_tolerance():
    square, shifted = np.zeros((2, 20, 20), bool)
    square[5:15, 5:15], shifted[5:15, 7:17] = True, True
    assert surface_score(shifted, square, tolerance=2).surface_dice == 1
    assert surface_score(shifted, square).hd95 == 2
    # of 36 outline pixels each, two pixels off lie the ten of the outer upright side, and of the inner one the six
    # that are farther than one from the level sides
    assert surface_score(shifted, square, tolerance=1).surface_dice == pytest.approx((72 - 2 * 16) / 72)


def test_empty_masks_count_as_the_docstring_says():
    both, mask, label = (surface_score(*pair) for pair in ((EMPTY, EMPTY), (EMPTY, DOT), (DOT, EMPTY)))
    assert math.isnan(both.hd95)
    assert math.isnan(both.surface_dice)
    assert (mask.hd95, mask.surface_dice) == (label.hd95, label.surface_dice) == (math.inf, 0)


@pytest.mark.parametrize("shape", [(40, 33), (9, 20, 14)], ids=["picture", "volume"])
@pytest.mark.parametrize("seed", range(3))
def test_monai_computes_the_same(shape, seed):
    mask, label = blob(shape, seed), blob(shape, seed + 10)
    spacing = [0.7, 1.3, 2.0][: len(shape)]
    pair = [torch.from_numpy(array)[None, None] for array in (mask, label)]
    found = surface_score(mask, label, spacing=spacing, tolerance=1.5)
    hd = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
    nsd = compute_surface_dice(*pair, [1.5], include_background=True, spacing=spacing)
    assert found.hd95 == pytest.approx(hd.item(), abs=1e-5)
    assert found.surface_dice == pytest.approx(nsd.item(), abs=1e-6)


def test_room_around_the_masks_changes_nothing():
    mask, label = blob((20, 20), 1), blob((20, 20), 2)
    wide = [np.pad(array, 30) for array in (mask, label)]
    assert surface_score(*wide) == surface_score(mask, label)


def test_grids_that_differ_are_refused():
    with pytest.raises(ShapeError, match=r"\(6, 7\), expected the label's \(7, 6\)"):
        surface_score(DOT, DOT.T)
