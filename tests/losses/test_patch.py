# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The patch loss: by hand on a 4 x 4 mask, and refusals."""

import math

import pytest
import torch

from monai_effsam.errors import ShapeError
from monai_effsam.losses import PatchPromptLoss, patch_target

MASK = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
MASK[0, 0, 1, 2] = 7  # upper right patch of a 2 x 2 grid


def test_target_marks_the_patch_that_holds_a_pixel():
    assert patch_target(MASK, (2, 2)).tolist() == [[[[0, 1], [0, 0]]]]


def test_target_of_a_rectangular_grid():
    assert patch_target(MASK, (4, 2)).nonzero().tolist() == [[0, 0, 1, 1]]


def test_loss_by_hand():
    logits = torch.tensor([[[[0.0, 0.0], [0.0, math.log(3)]]]])  # p = 1/2, 1/2, 1/2, 3/4 against 0, 1, 0, 0
    want = torch.tensor([[[[1.0, 1.0], [1.0, 2.0]]]]) * math.log(2)
    torch.testing.assert_close(PatchPromptLoss(reduction="none")(logits, MASK), want)
    torch.testing.assert_close(PatchPromptLoss()(logits, MASK), want.mean())
    torch.testing.assert_close(PatchPromptLoss(reduction="sum")(logits, MASK), want.sum())


def test_half_precision_logits_give_float32():
    assert PatchPromptLoss()(torch.zeros(1, 1, 2, 2).half(), MASK).dtype == torch.float32


def test_a_grid_that_does_not_divide_the_mask_is_refused():
    with pytest.raises(ShapeError, match="Give the mask at model size"):
        PatchPromptLoss()(torch.zeros(1, 1, 3, 3), MASK)


def test_other_channels_are_refused():
    with pytest.raises(ShapeError, match="join their masks first"):
        PatchPromptLoss()(torch.zeros(1, 2, 2, 2), MASK)
