# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Overlap that a reader can redo on paper, and against MONAI's own metric."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric

from monai_effsam.errors import ShapeError
from monai_effsam.metrics import dice_score, iou_score, precision_score, recall_score

MASK = np.array([[1, 1, 0], [1, 0, 0]], bool)
LABEL = np.array([[0, 1, 1], [1, 0, 0]], bool)
EMPTY = np.zeros((2, 3), bool)


def noise(seed):
    return np.random.default_rng(seed).random((3, 20, 17)) > 0.6


def test_two_of_three_pixels_on_each_side():
    assert dice_score(MASK, LABEL) == pytest.approx(4 / 6)
    assert iou_score(MASK, LABEL) == pytest.approx(2 / 4)


def test_precision_is_of_the_mask_and_recall_of_the_label():
    wide = MASK | LABEL
    assert precision_score(wide, LABEL) == pytest.approx(3 / 4)
    assert recall_score(wide, LABEL) == 1
    assert (precision_score(MASK, ~MASK), recall_score(MASK, ~MASK)) == (0, 0)


def test_what_claims_nothing_has_no_precision_and_what_misses_nothing_no_recall():
    assert math.isnan(precision_score(EMPTY, LABEL))
    assert math.isnan(recall_score(MASK, EMPTY))
    assert recall_score(EMPTY, LABEL) == precision_score(MASK, EMPTY) == 0


@pytest.mark.parametrize("score", [dice_score, iou_score])
@pytest.mark.parametrize(
    ("mask", "label", "expected"),
    [(MASK, MASK, 1), (EMPTY, EMPTY, 1), (MASK, EMPTY, 0), (EMPTY, MASK, 0), (MASK, ~MASK, 0)],
    ids=["same", "both empty", "label empty", "mask empty", "apart"],
)
def test_ends_of_the_scale(score, mask, label, expected):
    assert score(mask, label) == expected


@pytest.mark.parametrize("seed", range(4))
def test_dice_follows_from_iou_and_both_are_symmetric(seed):
    a, b = noise(seed), noise(seed + 10)
    iou = iou_score(a, b)
    assert dice_score(a, b) == pytest.approx(2 * iou / (1 + iou))
    assert (dice_score(b, a), iou_score(b, a)) == (dice_score(a, b), iou)


def test_dice_is_what_monai_computes():
    a, b = noise(1), noise(2)
    theirs = DiceMetric()(torch.from_numpy(a)[None, None].float(), torch.from_numpy(b)[None, None].float())
    assert dice_score(a, b) == pytest.approx(theirs.item(), abs=1e-6)


def test_grids_that_differ_are_refused():
    with pytest.raises(ShapeError, match=r"\(2, 3\), expected the label's \(3, 2\)"):
        dice_score(MASK, LABEL.T)
