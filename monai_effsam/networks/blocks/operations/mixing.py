# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Operations that look further than a convolution at little cost: pooling, ReLU linear attention, MSA-Conv."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.networks.blocks.mbconv import ConvNorm
from monai_effsam.networks.blocks.operations.contract import (
    WIDTH_STEP,
    ComputeCost,
    Operation,
    convolution_cost,
    register_operation,
)
from monai_effsam.networks.blocks.operations.convolutions import ResidualOperation
from monai_effsam.networks.layers.msa_conv import MSAConv2d

__all__ = ["LinearAttention", "MsaConvOperation", "PoolMixer"]

_MLP = 2  # hidden width of the pooling mixer's channel MLP, over C
_EPS = 1e-6


class PoolMixer(nn.Module):
    """Pooling as token mixer, then a channel MLP, each added to what comes in.

    "MetaFormer Is Actually What You Need for Vision", Yu et al., arXiv 2111.11418; instead of its norms a learned scale
    for each channel, so that nothing is left in a graph that a convolution cannot take in.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        """Build both halves; the scale starts at 1."""
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.mlp = ResidualOperation(
            ConvNorm(channels, _MLP * channels), nn.ReLU(), ConvNorm(_MLP * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        near = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        mixed: Tensor = self.mlp(x + self.scale * (near - x))
        return mixed


def _pool_cost(channels: int, height: int, width: int) -> ComputeCost:
    hidden, cells = _MLP * channels, height * width
    mlp = convolution_cost(channels, hidden, 1, cells).plus(convolution_cost(hidden, channels, 1, cells))
    return mlp.plus(ComputeCost(0, channels))


class LinearAttention(nn.Module):
    """x + projection(attention(x)) with kernel ReLU(q) . ReLU(k): cost linear in the number of cells.

    "EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction", Cai et al., arXiv 2205.14756, one
    scale. Sums over cells are means, so that half precision holds them.

    Args:
        channels: C; each head has `WIDTH_STEP` of them.
    """

    def __init__(self, channels: int) -> None:
        """Build both 1x1 convolutions."""
        super().__init__()
        self.heads = channels // WIDTH_STEP
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.projection = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        batch, channels, height, width = x.shape
        cells = height * width
        # one axis for batch and heads: runtimes have their fastest matrix products for three axes
        qkv = self.qkv(x).reshape(batch, 3, self.heads, WIDTH_STEP, cells).transpose(0, 1)
        q, k, v = qkv.reshape(3, batch * self.heads, WIDTH_STEP, cells).unbind(0)
        q, k = F.relu(q), F.relu(k)
        across = v @ k.transpose(1, 2) / cells
        whole = (q * k.mean(2, keepdim=True)).sum(1, keepdim=True) + _EPS
        attended = (across @ q / whole).reshape(batch, channels, height, width)
        projected: Tensor = self.projection(attended)
        return x + projected


def _linear_attention_cost(channels: int, height: int, width: int) -> ComputeCost:
    cells = height * width
    qkv = convolution_cost(channels, 3 * channels, 1, cells, norm=False)
    products = ComputeCost(2 * channels * WIDTH_STEP * cells, 0)
    return qkv.plus(products).plus(convolution_cost(channels, channels, 1, cells))


class MsaConvOperation(nn.Module):
    """x + ReLU(norm(MSA-Conv(x))); see `MSAConv2d`, whose residual is inside as in the release.

    Args:
        channels: C; each head has `WIDTH_STEP` of them.
    """

    def __init__(self, channels: int) -> None:
        """Build with a window and a convolution of 3 x 3."""
        super().__init__()
        self.attention = MSAConv2d(channels, channels, 3, heads=channels // WIDTH_STEP, act=None)
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + F.relu(self.norm(self.attention(x)))


def _msa_conv_cost(channels: int, height: int, width: int) -> ComputeCost:
    cells, window = height * width, 9
    qkv = convolution_cost(channels, 3 * channels, 1, cells, norm=False).plus(ComputeCost(0, 3 * channels))
    products = ComputeCost(2 * channels * window * cells, 0)
    return qkv.plus(products).plus(convolution_cost(channels, channels, 3, cells))


register_operation(Operation("pool_mixer", PoolMixer, _pool_cost))
register_operation(Operation("linear_attention", LinearAttention, _linear_attention_cost))
register_operation(Operation("msa_conv_k3", MsaConvOperation, _msa_conv_cost))
