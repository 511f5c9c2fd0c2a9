# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Saliency transfer: a student should look where its teacher looks, whatever either is made of."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from monai.utils import LossReduction
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from monai_effsam.errors import ShapeError

__all__ = ["SaliencyTransferLoss"]

Distance = Literal["square", "kl"]
_EPS = 1e-8


class SaliencyTransferLoss(_Loss):
    """Distance of two saliency maps of one size, whatever their scales.

    `square` is attention transfer, sum (s / |s| - t / |t|)^2 over positions ("Paying More Attention to Attention",
    Zagoruyko and Komodakis, arXiv 1612.03928; their mean over positions times 1e3 is about this at 32 x 32). `kl` takes
    maps for distributions p proportional to s^(1 / tau): KL(p_t || p_s). Where the teacher's map is all zero, as
    Grad-CAM's often is early on, the image does not count.

    Args:
        distance: `square` or `kl`.
        temperature: tau of `kl`.
        reduction: `mean`, `sum` or `none` over the images.

    Raises:
        ValueError: unknown distance, or a temperature that is not positive.
    """

    def __init__(
        self,
        distance: Distance = "square",
        temperature: float = 1.0,
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if distance not in get_args(Distance):
            raise ValueError(
                f"SaliencyTransferLoss: distance is '{distance}', expected one of {get_args(Distance)}."
            )
        if temperature <= 0:
            raise ValueError(f"SaliencyTransferLoss: temperature is {temperature}, expected more than 0.")
        self.distance, self.temperature = distance, temperature

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Student's and teacher's maps.

        Args:
            input: (B, h, w), at least 0; see `saliency_maps` for how to make them.
            target: (B, h', w'); carries no gradient. The input is resized to it.

        Returns:
            A scalar, or (B,) for `reduction="none"`; float32 for half-precision maps.

        Raises:
            ShapeError: not (B, h, w) maps of one B.
        """
        if input.ndim != 3 or target.ndim != 3 or len(input) != len(target):
            raise ShapeError(
                f"SaliencyTransferLoss: maps have shapes {tuple(input.shape)} and {tuple(target.shape)}, expected"
                " (B, h, w) each with one B. Make one map an image."
            )
        theirs = target.detach().float()
        ours = input.float()
        if ours.shape != theirs.shape:
            size = tuple(theirs.shape[-2:])
            ours = F.interpolate(ours[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
        counts = theirs.flatten(1).abs().amax(1) > 0
        s, t = (x.flatten(1) for x in (ours, theirs))
        if self.distance == "square":
            s, t = (F.normalize(x, dim=1, eps=_EPS) for x in (s, t))
            each = (s - t).square().sum(1)
        else:
            log_s, log_t = (F.log_softmax((x + _EPS).log() / self.temperature, 1) for x in (s, t))
            each = (log_t.exp() * (log_t - log_s)).sum(1)
        each = torch.where(counts, each, each.new_zeros(()))
        if self.reduction == LossReduction.NONE.value:
            return each
        return (
            each.sum()
            if self.reduction == LossReduction.SUM.value
            else each.sum() / counts.sum().clamp(min=1)
        )
