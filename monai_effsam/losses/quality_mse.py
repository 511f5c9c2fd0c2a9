# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Distillation of the quality head: a student should be as sure of its masks as its teacher is of its own."""

from __future__ import annotations

from monai.utils import LossReduction
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_effsam.errors import ShapeError

__all__ = ["QualityMseLoss"]


class QualityMseLoss(_Loss):
    """Squared distance of estimated IoUs. Compare estimates of one mask token: SAM has four, and they mean
    different things.

    "EdgeSAM: Prompt-In-the-Loop Distillation for On-Device Deployment of SAM", arXiv 2312.06660, leaves the head out of
    distillation and finds its estimates unusable.

    Args:
        reduction: `mean`, `sum` or `none` over the estimates.
    """

    def __init__(self, reduction: LossReduction | str = LossReduction.MEAN) -> None:
        super().__init__(reduction=LossReduction(reduction).value)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Student's and teacher's estimates, of one shape; the teacher's carry no gradient.

        Raises:
            ShapeError: the shapes differ.
        """
        if input.shape != target.shape:
            raise ShapeError(
                f"QualityMseLoss: target has shape {tuple(target.shape)}, expected the input's {tuple(input.shape)}."
                " Choose the same masks of both."
            )
        each = (input.float() - target.detach().float()).square()
        if self.reduction == LossReduction.NONE.value:
            return each
        return each.sum() if self.reduction == LossReduction.SUM.value else each.mean()
