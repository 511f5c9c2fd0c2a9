# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Masks with as many pieces as anatomy allows, and no holes."""

import numpy as np
import pytest

from monai_effsam.data.tidy import keep_pieces


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
