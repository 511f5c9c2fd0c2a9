# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Distillation of class logits: the teacher's doubts between classes are learned with its answers."""

from __future__ import annotations

from monai.utils import LossReduction
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from monai_effsam.errors import ShapeError

__all__ = ["ClassKlLoss"]


class ClassKlLoss(_Loss):
    """T^2 KL(softmax(target / T) || softmax(input / T)), a mean over pictures; 0 where the two agree.

    "Distilling the Knowledge in a Neural Network", Hinton et al., arXiv 1503.02531; T^2 keeps the gradients' scale.

    Args:
        temperature: T; above 1 the teacher's doubts weigh more.
        reduction: `mean`, `sum` or `none` over the pictures.

    Raises:
        ValueError: T is not positive.
    """

    def __init__(self, temperature: float = 2.0, reduction: LossReduction | str = LossReduction.MEAN) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if temperature <= 0:
            raise ValueError(f"ClassKlLoss: temperature is {temperature}, expected more than 0.")
        self.temperature = temperature

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Student's and teacher's class logits.

        Args:
            input: (B, K).
            target: (B, K); carries no gradient.

        Returns:
            A scalar, or (B,) for `reduction="none"`; float32 for half-precision logits.

        Raises:
            ShapeError: the shapes differ.
        """
        if input.shape != target.shape or input.ndim != 2:
            raise ShapeError(
                f"ClassKlLoss: target has shape {tuple(target.shape)}, expected the input's {tuple(input.shape)}"
                " and (B, K). Give logits of the same classes."
            )
        ours = (input.float() / self.temperature).log_softmax(1)
        theirs = (target.detach().float() / self.temperature).log_softmax(1)
        each = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1) * self.temperature**2
        if self.reduction == LossReduction.NONE.value:
            return each
        return each.sum() if self.reduction == LossReduction.SUM.value else each.mean()
