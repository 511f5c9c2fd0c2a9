# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Loss of prompted masks: Dice and cross-entropy of the best mask a prompt gave, and how well quality was estimated."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.errors import ShapeError
from monai_effsam.losses.self_prompting import thresholded_iou

__all__ = ["PromptedMaskLoss", "PromptedTerms"]


class PromptedTerms(NamedTuple):
    """The terms of one batch, scalars each; `total` is their weighted sum and the only one with a gradient."""

    total: Tensor
    mask: Tensor
    quality: Tensor


class PromptedMaskLoss(nn.Module):
    """Soft Dice + cross-entropy of one mask a prompt, + w x (estimated IoU - IoU reached)^2.

    Where a prompt gives several masks, the one of least loss counts, so that each may learn another reading of an
    ambiguous click ("Segment Anything", arXiv 2304.02643, section 3; its focal loss is cross-entropy here, as in
    MedSAM, arXiv 2304.12306). Every mask's quality is judged.

    Args:
        quality_weight: w.
        smooth: added to both sides of the Dice fraction [px].
    """

    def __init__(self, quality_weight: float = 0.2, smooth: float = 1.0) -> None:
        super().__init__()
        self.quality_weight, self.smooth = quality_weight, smooth

    def forward(self, logits: Tensor, quality: Tensor, label: Tensor, valid: Tensor) -> PromptedTerms:
        """M masks for each of N prompts on each of B images.

        Args:
            logits: (B, N, M, h, w).
            quality: estimated IoU, (B, N, M).
            label: (B, N, h, w), 0..1 (soft at edges).
            valid: (B, N) bool; other prompts carry no loss.

        Raises:
            ShapeError: shapes that do not belong together.
        """
        if logits.ndim != 5 or logits.shape[:2] + logits.shape[3:] != label.shape:
            raise ShapeError(
                f"PromptedMaskLoss: logits have shape {tuple(logits.shape)} and label {tuple(label.shape)}, expected "
                "(B, N, M, h, w) and (B, N, h, w). Resize the label first."
            )
        logits, wanted = logits.float(), label.float()[:, :, None].expand_as(logits)
        probability = logits.sigmoid()
        both = (probability * wanted).flatten(3).sum(3)
        either = (probability + wanted).flatten(3).sum(3)
        dice = 1 - (2 * both + self.smooth) / (either + self.smooth)
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").flatten(3).mean(3)
        least = (dice + entropy).amin(2)
        count = valid.sum().clamp(min=1)
        mask = (least * valid).sum() / count
        gap = (quality.float() - thresholded_iou(logits.detach(), wanted)).square().mean(2)
        estimate = (gap * valid).sum() / count
        total = mask + self.quality_weight * estimate
        return PromptedTerms(total, mask.detach(), estimate.detach())
