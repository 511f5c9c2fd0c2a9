# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Patch loss: what teaches the self-prompter which patches hold something."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from monai.utils import LossReduction
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_effsam.errors import ShapeError

__all__ = ["PatchPromptLoss", "patch_target"]


def patch_target(mask: Tensor, grid: Sequence[int]) -> Tensor:
    """Which patches of a mask hold any foreground pixel: max pooling with kernel and stride of one patch.

    Args:
        mask: (B, P, H, W) of any dtype, above 0 inside.
        grid: (h, w) of the patch map; must divide (H, W).

    Returns:
        (B, P, h, w) float32, 0 or 1.

    Raises:
        ShapeError: the grid does not divide the mask.
    """
    height, width = mask.shape[-2:]
    if mask.ndim != 4 or height % grid[0] or width % grid[1]:
        raise ShapeError(
            f"patch_target: mask has shape {tuple(mask.shape)}, expected (B, P, H, W) with H and W multiples of the"
            f" patch grid {tuple(grid)}. Give the mask at model size."
        )
    return F.max_pool2d((mask > 0).float(), (height // grid[0], width // grid[1]))


class PatchPromptLoss(_Loss):
    """Binary cross-entropy of patch logits against the max-pooled mask.

    "ESP-MedSAM", L_SPPG: a patch is positive if it holds any foreground pixel.

    Args:
        reduction: `mean`, `sum` or `none` over the cells.
    """

    def __init__(self, reduction: LossReduction | str = LossReduction.MEAN) -> None:
        super().__init__(reduction=LossReduction(reduction).value)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Patch logits (B, P, h, w) and masks (B, P, H, W), above 0 inside; h divides H, w divides W.

        Returns:
            A scalar, or (B, P, h, w) for `reduction="none"`; float32 for half-precision logits.

        Raises:
            ShapeError: batch or channels differ, or the patch grid does not divide the mask.
        """
        if input.ndim != 4 or input.shape[:2] != target.shape[:2]:
            raise ShapeError(
                f"PatchPromptLoss: logits have shape {tuple(input.shape)}, mask {tuple(target.shape)}, expected"
                " (B, P, h, w) and (B, P, H, W). Where one patch map serves several targets, join their masks first."
            )
        logits = input.float() if input.itemsize < 4 else input
        wanted = patch_target(target, input.shape[-2:]).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction=self.reduction)
