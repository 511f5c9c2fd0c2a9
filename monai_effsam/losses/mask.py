# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Mask loss of self-prompting training."""

from __future__ import annotations

import torch.nn.functional as F
from monai.utils import LossReduction
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_effsam.errors import ShapeError

__all__ = ["SelfPromptMaskLoss"]

_FOCAL_WEIGHT = 0.8
_FOCAL_POWER = 2


class SelfPromptMaskLoss(_Loss):
    """Dice and focal loss of mask logits, as ESP-MedSAM and its sister model UN-SAM train with.

    With p = sigmoid(input) and y the mask: L = w (1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s)) + (1 - w) focal,
    focal = 0.8 (1 - exp(-BCE))^2 BCE. The focal factor comes from the mean BCE, not from that of each pixel.
    An empty mask is fine: its dice term approaches 0 as p does.

    Args:
        dice_weight: w, 0..1.
        smooth: s [px].
        batch: sums and means run over the whole batch and all targets (the paper); False gives each map (image,
            target) its own value, which `reduction` then joins.
        reduction: `mean`, `sum` or `none` over the maps; without meaning for `batch=True`, where there is one value.
    """

    def __init__(
        self,
        dice_weight: float = 0.8,
        smooth: float = 1.0,
        batch: bool = True,
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        self.dice_weight = dice_weight
        self.smooth = smooth
        self.batch = batch

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Mask logits and masks, both (B, T, H, W); the mask of any dtype, above 0 inside.

        Returns:
            A scalar, or (B, T) for `batch=False` and `reduction="none"`; float32 for half-precision logits.

        Raises:
            ShapeError: shapes differ, or are not (B, T, H, W).
        """
        if input.shape != target.shape or input.ndim != 4:
            raise ShapeError(
                f"SelfPromptMaskLoss: target has shape {tuple(target.shape)}, expected the logits' {tuple(input.shape)}"
                " and (B, T, H, W). Resize one to the other first."
            )
        logits = input.float() if input.itemsize < 4 else input
        mask = (target > 0).to(logits.dtype)
        logits, mask = (x.flatten() if self.batch else x.flatten(2) for x in (logits, mask))
        probability = logits.sigmoid()
        overlap = 2 * (probability * mask).sum(-1) + self.smooth
        dice = 1 - overlap / (probability.sum(-1) + mask.sum(-1) + self.smooth)
        entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none").mean(-1)
        focal = _FOCAL_WEIGHT * (1 - (-entropy).exp()) ** _FOCAL_POWER * entropy
        loss = self.dice_weight * dice + (1 - self.dice_weight) * focal
        if self.reduction == LossReduction.NONE.value:
            return loss
        return loss.sum() if self.reduction == LossReduction.SUM.value else loss.mean()
