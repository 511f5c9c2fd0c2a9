# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Distillation of mask logits: each pixel is a coin, not a class among classes."""

from __future__ import annotations

import torch
from monai.utils import LossReduction
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from monai_effsam.errors import ShapeError

__all__ = ["BernoulliKlLoss"]


class BernoulliKlLoss(_Loss):
    """T^2 KL(sigmoid(target / T) || sigmoid(input / T)), a mean over pixels; 0 where the two agree.

    "Distilling the Knowledge in a Neural Network", Hinton et al., arXiv 1503.02531, for independent pixels. A softmax
    over a single channel would be identically 0; T^2 keeps the gradients' scale.

    Args:
        temperature: T; above 1 the teacher's doubts weigh more.
        reduction: `mean`, `sum` or `none` over the pixels.

    Raises:
        ValueError: T is not positive.
    """

    def __init__(self, temperature: float = 1.0, reduction: LossReduction | str = LossReduction.MEAN) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if temperature <= 0:
            raise ValueError(f"BernoulliKlLoss: temperature is {temperature}, expected more than 0.")
        self.temperature = temperature

    def forward(self, input: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Student's and teacher's mask logits.

        Args:
            input: of any shape.
            target: the same shape; carries no gradient.
            weight: of each pixel, 0 for padding; broadcast over the logits. The mean is over the weights.

        Returns:
            A scalar, or the input's shape for `reduction="none"`; float32 for half-precision logits.

        Raises:
            ShapeError: the shapes differ.
        """
        if input.shape != target.shape:
            raise ShapeError(
                f"BernoulliKlLoss: target has shape {tuple(target.shape)}, expected the input's {tuple(input.shape)}."
                " Resize one to the other first."
            )
        ours, theirs = input.float() / self.temperature, target.detach().float() / self.temperature
        inside = theirs.sigmoid() * (F.logsigmoid(theirs) - F.logsigmoid(ours))
        outside = (-theirs).sigmoid() * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
        each = (inside + outside) * self.temperature**2
        share = torch.ones_like(each) if weight is None else weight.float().expand_as(each)
        each = each * share
        if self.reduction == LossReduction.NONE.value:
            return each
        total = each.sum()
        return total if self.reduction == LossReduction.SUM.value else total / share.sum().clamp(min=1e-8)
