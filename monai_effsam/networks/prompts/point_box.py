# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Points, boxes and masks of a user: segment-anything's prompt encoder, for any image and grid size."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from monai_effsam.networks.foreign import import_segment_anything

__all__ = ["PointBoxPrompter"]


class PointBoxPrompter(nn.Module):
    """segment-anything's `PromptEncoder`, told the image size at each call instead of at construction.

    Its keys are kept (`encoder.point_embeddings.0.weight` ...).

    Args:
        embed_dim: C of the embedding.
    """

    def __init__(self, embed_dim: int = 256) -> None:
        super().__init__()
        modeling = import_segment_anything().modeling
        self.embed_dim = embed_dim
        self.encoder = modeling.PromptEncoder(
            embed_dim=embed_dim, image_embedding_size=(1, 1), input_image_size=(1, 1), mask_in_chans=16
        )

    def position(self, height: int, width: int) -> Tensor:
        """Position code of a grid, (1, C, height, width)."""
        return cast(Tensor, self.encoder.pe_layer((height, width)))[None]

    def forward(
        self,
        points: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        image_size: tuple[int, int],
    ) -> Tensor:
        """Sparse prompt embedding.

        Args:
            points: (B, N, 2), (x, y) in model pixels, or None.
            labels: (B, N), 1 inside, 0 outside, -1 padding; given with points.
            boxes: (B, 4), (x0, y0, x1, y1) in model pixels, or None.
            image_size: (H, W) of the model's frame [px].

        Returns:
            (B, N', C); a padding point is added where points come without a box, as in segment-anything.
        """
        self.encoder.input_image_size = image_size
        parts = []
        if points is not None:
            if labels is None:
                raise ValueError("PointBoxPrompter: points without labels, expected one label a point.")
            parts.append(self.encoder._embed_points(points, labels, pad=boxes is None))
        if boxes is not None:
            parts.append(self.encoder._embed_boxes(boxes))
        return torch.cat(parts, 1)

    def dense(self, masks: Tensor, grid: tuple[int, int]) -> Tensor:
        """Dense prompt embedding of mask logits, (B, 1, h, w) -> (B, C, *grid)."""
        wanted = (4 * grid[0], 4 * grid[1])
        if tuple(masks.shape[-2:]) != wanted:
            masks = nn.functional.interpolate(masks, size=wanted, mode="bilinear", align_corners=False)
        return cast(Tensor, self.encoder._embed_masks(masks))
