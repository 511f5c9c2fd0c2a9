# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Convolutional parts of TinyViT: convolution with batch norm, inverted residual, stride-2 merging."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvNorm", "InvertedResidualBlock", "MapMerging"]


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm; state-dict keys `c` and `bn` as in MobileSAM's encoder.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: side of the kernel, odd; the border is padded with zeros so that stride 1 keeps the size.
        stride: step of the kernel [px of the map].
        groups: channel groups; `in_channels` makes it depthwise.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        """Build both layers with PyTorch's default initialisation."""
        super().__init__()
        self.c = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))."""
        return cast(Tensor, self.bn(self.c(x)))


class InvertedResidualBlock(nn.Module):
    """TinyViT's first-stage block: widen 1x1, depthwise 3x3, narrow 1x1, add the input, GELU.

    The last batch norm starts at weight 0, so that a fresh block is GELU of its input.

    Args:
        channels: C, in and out.
        expand_ratio: hidden width over C.
    """

    def __init__(self, channels: int, expand_ratio: int = 4) -> None:
        """Build the three convolutions."""
        super().__init__()
        hidden = channels * expand_ratio
        self.conv1 = ConvNorm(channels, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, channels)
        nn.init.zeros_(self.conv3.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(hidden))


class MapMerging(nn.Module):
    """Change of width (and, at stride 2, of resolution) between two stages of TinyViT.

    1x1 -> GELU -> depthwise 3x3 with stride -> GELU -> 1x1, each convolution with batch norm.

    Args:
        in_channels: C of the stage before.
        out_channels: C of the stage after.
        stride: 2 halves the map, 1 keeps it (before the last stage of MobileSAM's encoder).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2) -> None:
        """Build the three convolutions."""
        super().__init__()
        self.conv1 = ConvNorm(in_channels, out_channels)
        self.conv2 = ConvNorm(out_channels, out_channels, 3, stride, groups=out_channels)
        self.conv3 = ConvNorm(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))."""
        return cast(Tensor, self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))
