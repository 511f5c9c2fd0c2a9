# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The loss of prompted masks against values worked out by hand."""

import math

import pytest
import torch

from monai_effsam.errors import ShapeError
from monai_effsam.losses.prompted import PromptedMaskLoss

HUGE = 60.0


def masks(*rows):
    """Rows of signs as logits (1, 1, 1, 1, w) that leave no doubt."""
    return torch.tensor(rows)[None, None, :, None, :] * HUGE


def test_a_perfect_mask_with_a_perfect_estimate_costs_nothing():
    label = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    terms = PromptedMaskLoss()(
        masks([1.0, 1.0, -1.0, -1.0]), torch.ones(1, 1, 1), label, torch.ones(1, 1) > 0
    )
    assert terms.total == pytest.approx(0, abs=1e-6)


def test_half_of_an_object_costs_what_the_formula_says():
    label = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    terms = PromptedMaskLoss(quality_weight=0.5)(
        masks([1.0, -1.0, -1.0, -1.0]), torch.full((1, 1, 1), 0.9), label, torch.ones(1, 1) > 0
    )
    dice = 1 - (2 * 1 + 1) / (3 + 1)
    assert terms.mask == pytest.approx(
        dice + HUGE / 4, rel=1e-5
    )  # one of four pixels is wrong, and very sure
    assert terms.quality == pytest.approx((0.9 - 0.5) ** 2)
    assert terms.total == pytest.approx(float(terms.mask) + 0.5 * 0.16, rel=1e-5)


def test_of_several_masks_the_best_is_trained_and_all_are_judged():
    label = torch.tensor([[[[1.0, 0.0]]]])
    logits = torch.tensor([[[[[0.0, 0.0]], [[1.0, -1.0]]]]], requires_grad=True)
    terms = PromptedMaskLoss()(logits, torch.tensor([[[1.0, 0.0]]]), label, torch.ones(1, 1) > 0)
    terms.total.backward()
    assert logits.grad[0, 0, 0].abs().sum() == 0
    assert logits.grad[0, 0, 1].abs().sum() > 0
    assert terms.quality == pytest.approx(
        1.0
    )  # the first is empty, IoU 0, and was called perfect; so the second
    entropy = math.log1p(math.exp(-1))
    overlap = 1 / (1 + math.exp(-1))
    assert terms.mask == pytest.approx(1 - (2 * overlap + 1) / (1 + 1 + 1) + entropy, rel=1e-5)


def test_prompts_that_are_not_valid_carry_no_loss():
    logits = torch.randn(2, 2, 1, 4, 4, requires_grad=True)
    label = (torch.rand(2, 2, 4, 4) > 0.5).float()
    valid = torch.tensor([[True, False], [False, False]])
    loss = PromptedMaskLoss()
    terms = loss(logits, torch.rand(2, 2, 1), label, valid)
    terms.total.backward()
    assert (logits.grad.abs().flatten(2).sum(2) > 0).tolist() == valid.tolist()
    alone = loss(logits[:1, :1], torch.rand(1, 1, 1), label[:1, :1], valid[:1, :1])
    assert terms.mask == pytest.approx(float(alone.mask))
    assert loss(logits, torch.rand(2, 2, 1), label, valid & False).total == 0


def test_half_precision_stays_finite_and_shapes_are_checked():
    logits = torch.full((1, 1, 1, 64, 64), 300.0).half()
    terms = PromptedMaskLoss()(
        logits, torch.ones(1, 1, 1).half(), torch.zeros(1, 1, 64, 64), torch.ones(1, 1) > 0
    )
    assert torch.isfinite(terms.total)
    with pytest.raises(ShapeError, match="Resize the label first"):
        PromptedMaskLoss()(logits, torch.ones(1, 1, 1), torch.zeros(1, 1, 32, 32), torch.ones(1, 1) > 0)
