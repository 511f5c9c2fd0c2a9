# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The training loss, redone on paper for 2 x 2 images."""

import math

import pytest
import torch

from monai_effsam.losses.self_prompting import SelfPromptingLoss, masked_dice_bce, thresholded_iou

BIG = 50.0  # a logit whose sigmoid is 1 in float32
YES, NO = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.bool)
HALF = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])


def logits(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 2, 2)


def test_undecided_logits_by_hand():
    # p = 1/2 everywhere: overlap 1, sizes 2 + 2, dice 1 - 3/5; cross-entropy log 2
    found = masked_dice_bce(logits(0, 0, 0, 0), HALF, YES)
    assert found.item() == pytest.approx(1 - 3 / 5 + math.log(2))


def test_one_pixel_wrong_by_hand():
    # p = 1 on three pixels, two of them true: overlap 2, sizes 3 + 2; cross-entropy 50 on one of four pixels
    found = masked_dice_bce(logits(BIG, BIG, BIG, -BIG), HALF, YES)
    assert found.item() == pytest.approx(1 - 5 / 6 + BIG / 4)


def test_perfect_answer_costs_nothing():
    assert masked_dice_bce(logits(BIG, BIG, -BIG, -BIG), HALF, YES).item() == pytest.approx(0, abs=1e-6)


def test_empty_label_has_no_dice():
    assert masked_dice_bce(logits(0, 0, 0, 0), torch.zeros_like(HALF), YES).item() == pytest.approx(
        math.log(2)
    )


def test_unknown_pairs_carry_neither_loss_nor_gradient():
    answer = torch.zeros(2, 1, 2, 2, requires_grad=True)
    known = torch.tensor([[True], [False]])
    loss = masked_dice_bce(answer, HALF.expand(2, 1, 2, 2), known)
    loss.backward()
    assert loss.item() == pytest.approx(1 - 3 / 5 + math.log(2))
    assert answer.grad[0].any()
    assert not answer.grad[1].any()


def test_nothing_known_is_zero_and_finite():
    assert masked_dice_bce(logits(0, 0, 0, 0), HALF, NO).item() == 0


def test_iou_by_hand():
    assert thresholded_iou(logits(1, -1, 1, -1), HALF).item() == pytest.approx(1 / 3)
    assert thresholded_iou(logits(1, 1, -1, -1), HALF).item() == 1
    assert thresholded_iou(logits(-1, -1, -1, -1), torch.zeros_like(HALF)).item() == 0
    assert thresholded_iou(logits(1, 1, -1, -1), HALF / 4).item() == 0


def terms(mask=(0, 0, 0, 0), patch=0.0, presence=0.0, quality=0.5, label=HALF, known=YES, **weights):
    return SelfPromptingLoss(**weights)(
        logits(*mask),
        torch.full((1, 1, 1, 1), patch),
        torch.tensor([[presence]]),
        torch.tensor([[quality]]),
        label,
        known,
    )


def test_each_term_by_hand():
    found = terms(mask=(1, -1, 1, -1), patch=math.log(3), presence=-math.log(3), quality=0.5)
    assert found.patch.item() == pytest.approx(math.log(4 / 3))  # p = 3/4, the patch holds something
    assert found.presence.item() == pytest.approx(math.log(4))  # p = 1/4, it is there
    assert found.quality.item() == pytest.approx((0.5 - 1 / 3) ** 2)


def test_total_is_the_weighted_sum():
    found = terms(patch_weight=3.0, presence_weight=5.0, quality_weight=7.0)
    want = found.mask + 3 * found.patch + 5 * found.presence + 7 * found.quality
    assert found.total.item() == pytest.approx(want.item())


def test_quality_of_an_absent_target_is_not_judged():
    found = terms(quality=0.9, label=torch.zeros_like(HALF))
    assert found.quality.item() == 0
    assert found.presence.item() == pytest.approx(math.log(2))


def test_unknown_pair_costs_nothing_at_all():
    assert terms(patch=5.0, presence=5.0, known=NO).total.item() == 0


def test_fine_label_is_averaged_for_masks_and_pooled_for_patches():
    label = torch.zeros(1, 1, 4, 4)
    label[0, 0, 0, 0] = 1  # a quarter of one mask cell, one of four patches
    found = SelfPromptingLoss()(
        torch.zeros(1, 1, 2, 2),
        torch.full((1, 1, 2, 2), BIG),
        torch.zeros(1, 1),
        torch.zeros(1, 1),
        label,
        YES,
    )
    assert found.mask.item() == pytest.approx(1 - (2 * 0.125 + 1) / (2 + 0.25 + 1) + math.log(2))
    assert found.patch.item() == pytest.approx(3 * BIG / 4)


def test_one_patch_map_for_all_targets_marks_any_of_them():
    label = torch.zeros(1, 2, 2, 2)
    label[0, 0, 0, 0] = label[0, 1, 1, 1] = 1
    patch = torch.tensor([[[[BIG, -BIG], [-BIG, BIG]]]])
    known = torch.ones(1, 2, dtype=torch.bool)
    found = SelfPromptingLoss()(
        torch.zeros(1, 2, 2, 2), patch, torch.zeros(1, 2), torch.zeros(1, 2), label, known
    )
    assert found.patch.item() == pytest.approx(0, abs=1e-6)


def test_quality_passes_no_gradient_to_the_masks():
    answer = torch.ones(1, 1, 2, 2, requires_grad=True)
    quality = torch.full((1, 1), 0.5, requires_grad=True)
    found = SelfPromptingLoss()(answer, torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), quality, HALF, YES)
    alone = masked_dice_bce(answer, HALF, YES)
    (want,) = torch.autograd.grad(alone, answer, retain_graph=True)
    found.total.backward()
    torch.testing.assert_close(answer.grad, want)
    assert quality.grad.item() == pytest.approx(0.2 * 2 * (0.5 - 0.5), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extreme_logits_stay_finite(value):
    label = torch.full((1, 1, 2, 2), value)
    assert all(
        torch.isfinite(t) for s in (-1e4, 1e4) for t in terms(mask=(s,) * 4, patch=s, presence=s, label=label)
    )
