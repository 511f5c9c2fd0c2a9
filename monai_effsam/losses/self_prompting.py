# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The training loss of the self-prompting model: masks, patch map, presence and quality in one sum."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SelfPromptingLoss", "SelfPromptingTerms", "masked_dice_bce", "thresholded_iou"]


class SelfPromptingTerms(NamedTuple):
    """The terms of one batch, scalars each; `total` is their weighted sum."""

    total: Tensor
    mask: Tensor
    patch: Tensor
    presence: Tensor
    quality: Tensor


def masked_dice_bce(logits: Tensor, label: Tensor, known: Tensor) -> Tensor:
    """Dice of the pairs that hold something, plus cross-entropy of all known pairs; a scalar.

    An empty pair has no Dice worth a gradient (1 - 1/(sum p + 1) rewards only the last pixel), so it counts in the
    cross-entropy alone.

    Args:
        logits: (B, T, H, W).
        label: (B, T, H, W), 0..1 (soft at edges).
        known: (B, T) bool: pairs that somebody has labelled.
    """
    probability = logits.sigmoid()
    overlap = (probability * label).flatten(2).sum(2)
    size = probability.flatten(2).sum(2) + label.flatten(2).sum(2)
    dice = 1 - (2 * overlap + 1) / (size + 1)
    bce = F.binary_cross_entropy_with_logits(logits, label, reduction="none").flatten(2).mean(2)
    present = known & (label.flatten(2).amax(2) > 0)
    return (dice * present).sum() / present.sum().clamp(min=1) + (bce * known).sum() / known.sum().clamp(
        min=1
    )


def thresholded_iou(logits: Tensor, label: Tensor) -> Tensor:
    """IoU of the masks logits > 0 and label >= 0.5, (..., H, W) each -> (...); 0 where both are empty."""
    found, true = logits > 0, label >= 0.5
    both = (found & true).flatten(-2).sum(-1)
    either = (found | true).flatten(-2).sum(-1)
    return both / torch.clamp(either, min=1)


class SelfPromptingLoss(nn.Module):
    """mask + w_patch x patch + w_presence x presence + w_quality x quality.

    Patch loss and its weight 0.5 as in ESP-MedSAM's training (arXiv 2407.14153 and its sister code); presence is a
    cross-entropy, quality the squared distance to the IoU reached.

    Args:
        patch_weight: weight of the patch map's cross-entropy against the max-pooled label.
        presence_weight: weight of the presence term.
        quality_weight: weight of the quality term.
    """

    def __init__(
        self, patch_weight: float = 0.5, presence_weight: float = 0.2, quality_weight: float = 0.2
    ) -> None:
        super().__init__()
        self.patch_weight = patch_weight
        self.presence_weight = presence_weight
        self.quality_weight = quality_weight

    def forward(
        self,
        mask_logits: Tensor,
        patch_logits: Tensor,
        presence_logits: Tensor,
        quality: Tensor,
        label: Tensor,
        known: Tensor,
    ) -> SelfPromptingTerms:
        """All terms of a batch.

        Args:
            mask_logits: (B, T, h, w).
            patch_logits: (B, T, g, g'), or (B, 1, g, g') for one map of everything.
            presence_logits: (B, T).
            quality: (B, T), 0..1.
            label: (B, T, H, W), 0 or 1, H and W multiples of h and w.
            known: (B, T) bool; unknown pairs carry no loss.
        """
        soft = F.adaptive_avg_pool2d(label, (mask_logits.shape[-2], mask_logits.shape[-1]))
        weight = known.to(label.dtype)
        count = weight.sum().clamp(min=1)
        mask = masked_dice_bce(mask_logits, soft, known)
        patches = F.adaptive_max_pool2d(label, patch_logits.shape[-2:])
        patch_weight = weight
        if patch_logits.shape[1] == 1 and label.shape[1] > 1:
            patches, patch_weight = patches.amax(1, keepdim=True), torch.ones_like(weight[:, :1])
        each = F.binary_cross_entropy_with_logits(patch_logits, patches, reduction="none").flatten(2).mean(2)
        patch = (each * patch_weight).sum() / patch_weight.sum().clamp(min=1)
        present = label.flatten(2).amax(2)
        presence = F.binary_cross_entropy_with_logits(presence_logits, present, reduction="none")
        presence = (presence * weight).sum() / count
        judged = weight * present
        square = (quality - thresholded_iou(mask_logits.detach(), soft)).square()
        estimate = (square * judged).sum() / judged.sum().clamp(min=1)
        total = (
            mask
            + self.patch_weight * patch
            + self.presence_weight * presence
            + self.quality_weight * estimate
        )
        return SelfPromptingTerms(total, mask.detach(), patch.detach(), presence.detach(), estimate.detach())
