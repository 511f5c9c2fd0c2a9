# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a student's image embedding lacks of its teacher's: squared distance, only where the picture is."""

from __future__ import annotations

import torch
from monai.utils import LossReduction
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from monai_effsam.errors import ShapeError

__all__ = ["EmbeddingMseLoss", "valid_cells"]


class EmbeddingMseLoss(_Loss):
    """Mean over channels and valid positions of (input - target)^2; the first stage of KD SAM and of MobileSAM.

    "Efficient Knowledge Distillation of SAM for Medical Image Segmentation", arXiv 2501.16740. Behind SAM's
    neck, whose LayerNorm gives every position unit energy, it is 2 (1 - cos) a position: 2 for unrelated embeddings.

    Args:
        reduction: `mean`, `sum` or `none` over the images.
    """

    def __init__(self, reduction: LossReduction | str = LossReduction.MEAN) -> None:
        super().__init__(reduction=LossReduction(reduction).value)

    def forward(self, input: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Student's and teacher's embeddings.

        Args:
            input: (B, C, h, w).
            target: the same shape; carries no gradient.
            valid: (B, 1, H, W) above 0 where the frame shows the picture and not its padding; None for everywhere.

        Returns:
            A scalar, or (B,) for `reduction="none"`; float32 for half-precision embeddings.

        Raises:
            ShapeError: the shapes differ.
        """
        if input.shape != target.shape or input.ndim != 4:
            raise ShapeError(
                f"EmbeddingMseLoss: target has shape {tuple(target.shape)}, expected the input's"
                f" {tuple(input.shape)} and (B, C, h, w). Resize one to the other first."
            )
        square = (input.float() - target.detach().float()).square().mean(1, keepdim=True)
        weight = torch.ones_like(square) if valid is None else valid_cells(valid, square.shape[-2:])
        each = (square * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1)
        if self.reduction == LossReduction.NONE.value:
            return each
        return each.sum() if self.reduction == LossReduction.SUM.value else each.mean()


def valid_cells(valid: Tensor, grid: torch.Size | tuple[int, int]) -> Tensor:
    """Which cells of an embedding's grid lie mostly within the picture, 0 or 1.

    Args:
        valid: (B, 1, H, W), above 0 inside.
        grid: (h, w).

    Returns:
        (B, 1, h, w) float32.
    """
    share = F.interpolate((valid > 0).float(), size=tuple(grid), mode="bilinear", align_corners=False)
    return (share > 0.5).float()
