# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The attention that the search is meant to do without: in windows, and over the whole map; for tables of cost only."""

from __future__ import annotations

from functools import partial
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.networks.blocks.operations.contract import (
    WIDTH_STEP,
    ComputeCost,
    Operation,
    convolution_cost,
    register_operation,
)
from monai_effsam.networks.layers.layer_norm_2d import LayerNorm2d

__all__ = ["AttentionOperation"]

_MLP = 4  # hidden width of a transformer's MLP, over C


class AttentionOperation(nn.Module):
    """A transformer's block on a map: softmax attention and MLP, each behind a channel norm and added.

    Args:
        channels: C; each head has `WIDTH_STEP` of them.
        window: side of the windows [px of the map]; a map that it does not divide is padded. None for the whole map.
    """

    def __init__(self, channels: int, window: int | None = None) -> None:
        """Build all layers as 1x1 convolutions."""
        super().__init__()
        self.window, self.heads = window, channels // WIDTH_STEP
        self.norm1, self.norm2 = LayerNorm2d(channels), LayerNorm2d(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.projection = nn.Conv2d(channels, channels, 1, bias=False)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, _MLP * channels, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(_MLP * channels, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x + cast(Tensor, self.projection(self._attended(self.qkv(self.norm1(x)))))
        return x + cast(Tensor, self.mlp(self.norm2(x)))

    def _attended(self, qkv: Tensor) -> Tensor:
        """Values of (B, 3 C, H, W), each cell's own from those of its window."""
        batch, channels, height, width = qkv.shape
        down, right = (self.window or height), (self.window or width)
        qkv = F.pad(qkv, (0, -width % right, 0, -height % down))
        rows, columns = qkv.shape[2] // down, qkv.shape[3] // right
        parts = qkv.reshape(batch, 3, self.heads, WIDTH_STEP, rows, down, columns, right)
        parts = parts.permute(1, 0, 4, 6, 2, 5, 7, 3).reshape(3, -1, down * right, WIDTH_STEP)
        q, k, v = parts.unbind(0)
        out = (q @ k.transpose(1, 2) * WIDTH_STEP**-0.5).softmax(-1) @ v
        out = out.reshape(batch, rows, columns, self.heads, down, right, WIDTH_STEP)
        out = out.permute(0, 3, 6, 1, 4, 2, 5).reshape(batch, channels // 3, rows * down, columns * right)
        return out[:, :, :height, :width]


def _attention_cost(channels: int, height: int, width: int, *, window: int | None = None) -> ComputeCost:
    cells, (down, right) = height * width, (window or height, window or width)
    padded = -(-height // down) * down * -(-width // right) * right
    parts = convolution_cost(channels, 3 * channels, 1, cells, norm=False)
    parts = parts.plus(convolution_cost(channels, channels, 1, cells, norm=False))
    for pair in ((channels, _MLP * channels), (_MLP * channels, channels)):
        parts = parts.plus(convolution_cost(*pair, 1, cells, norm=False))
    return parts.plus(ComputeCost(2 * channels * down * right * padded, 4 * channels))


register_operation(
    Operation(
        "window_attention_w8",
        partial(AttentionOperation, window=8),
        partial(_attention_cost, window=8),
        reference=True,
    )
)
register_operation(Operation("global_attention", AttentionOperation, _attention_cost, reference=True))
