# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Parts of a TiC network: stem, block of local attention, and the MSA-Conv between two stages."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from monai_effsam.networks.blocks.mbconv import ConvNorm
from monai_effsam.networks.layers.msa_conv import MSAConv2d

__all__ = ["TicBlock", "TicMerging", "TicStem"]


class TicStem(nn.Sequential):
    """Two 3x3 convolutions of stride 2 with batch norm, a ReLU between: (B, C_in, H, W) -> (B, C, H / 4, W / 4).

    Args:
        in_channels: C_in of the image.
        channels: C, even.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        """Build both convolutions."""
        half = channels // 2
        super().__init__(ConvNorm(in_channels, half, 3, 2), nn.ReLU(), ConvNorm(half, channels, 3, 2))


class TicBlock(nn.Module):
    """Local attention and MLP, each added to what comes in: x + P(attention(BN(x))), then x + MLP(BN(x)).

    P and the MLP's layers are 1x1 convolutions, so the block is a convolution net throughout, without a table of
    positions. Parameters: 12 C^2 + 13 C.

    Args:
        channels: C, in and out.
        heads: of the attention; they divide C.
        kernel_size: of the window, odd.
        dilation: of the window [px of the map].
        shift: step of a cyclic shift of keys and values [px of the map]; None for none.
        inter_pool: cell of pooled keys and values; it multiplies the dilation; None for none.
        dropout: of the attention's weights, in training.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        kernel_size: int = 3,
        *,
        dilation: int = 1,
        shift: int | None = None,
        inter_pool: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        """Build both halves."""
        super().__init__()
        self.norm1: nn.Module = nn.BatchNorm2d(channels)
        self.attention = MSAConv2d(
            channels, channels, kernel_size, dilation=dilation, heads=heads, shift=shift, inter_pool=inter_pool,
            projection="pointwise", residual=False, act=None, dropout=dropout, bias=True,
        )  # fmt: skip
        self.norm2: nn.Module = nn.BatchNorm2d(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), any H and W."""
        x = x + self.attention(self.norm1(x))
        return cast(Tensor, x + self.mlp(self.norm2(x)))


class TicMerging(MSAConv2d):
    """The MSA-Conv of the release between two stages: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride).

    Args:
        in_channels: C_in.
        out_channels: C_out.
        heads: of the attention; they divide C_in.
        stride: 2 halves the map, 1 keeps it.
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, stride: int = 2) -> None:
        """A window of 3 x 3, residual, 3 x 3 convolution, ReLU."""
        super().__init__(in_channels, out_channels, 3, stride, heads=heads)
