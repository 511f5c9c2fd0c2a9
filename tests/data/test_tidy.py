# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Masks with as many pieces as anatomy allows, and no holes."""

import cv2
import numpy as np
import pytest

from monai_effsam.data.tidy import as_ellipse, keep_pieces


def two_islands() -> np.ndarray:
    """A ring of 8 cells, and one cell of its own."""
    logits = np.full((5, 8), -2.0, np.float32)
    logits[1:4, 1:4] = 3
    logits[2, 2] = -1  # the hole
    logits[2, 6] = 1
    return logits


@pytest.mark.parametrize(("pieces", "area"), [(0, 9), (1, 9), (2, 10), (9, 10)])
def test_largest_pieces_stay_and_holes_are_filled(pieces, area):
    mask = keep_pieces(two_islands(), pieces) >= 0
    assert mask.sum() == area
    assert mask[2, 2] == (pieces > 0)
    assert mask[2, 6] == (pieces != 1)


def test_logits_of_kept_pixels_are_untouched_and_the_input_too():
    logits = two_islands()
    before = logits.copy()
    out = keep_pieces(logits, 1)
    assert np.array_equal(logits, before)
    assert out[1, 1] == 3
    assert out[0, 0] == -2


def test_an_empty_mask_stays_empty():
    empty = np.full((3, 3), -1, np.float32)
    assert np.array_equal(keep_pieces(empty, 1), empty)


def drawn(axes: tuple[int, int], angle: float = 30.0) -> np.ndarray:
    """An ellipse of logits +2 in -2, (60, 80)."""
    canvas = cv2.ellipse(np.zeros((60, 80), np.uint8), (38, 29), axes, angle, 0, 360, 1, -1)
    return (canvas * 4.0 - 2).astype(np.float32)


def test_a_ragged_ellipse_becomes_smooth_and_stays_where_it_was():
    clean = drawn((25, 17)) >= 0
    border = (drawn((27, 19)) >= 0) ^ (drawn((23, 15)) >= 0)
    flipped = border & (np.random.RandomState(0).rand(60, 80) < 0.2)
    ragged = np.where(flipped, -drawn((25, 17)), drawn((25, 17)))
    before = (ragged >= 0) ^ clean
    after = (as_ellipse(ragged) >= 0) ^ clean
    assert after.sum() < before.sum() / 2


def test_what_is_no_ellipse_stays_as_it_is():
    square = np.full((60, 80), -2, np.float32)
    square[10:14, 10:70] = 2
    square[10:50, 10:14] = 2
    assert as_ellipse(square) is square
    line = np.full((9, 40), -2, np.float32)
    line[4] = 2
    assert as_ellipse(line) is line
    empty = np.full((9, 9), -2, np.float32)
    assert as_ellipse(empty) is empty
