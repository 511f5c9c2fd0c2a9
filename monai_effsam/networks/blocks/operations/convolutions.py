# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Operations made of convolutions: depthwise-separable, inverted bottlenecks, grouped; ReLU, which runtimes fuse."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, cast

from torch import Tensor, nn

from monai_effsam.networks.blocks.mbconv import ConvNorm
from monai_effsam.networks.blocks.operations.contract import (
    LEAST_STEP,
    SKIP,
    WIDTH_STEP,
    ComputeCost,
    Operation,
    convolution_cost,
    register_operation,
)

__all__ = ["INVERTED", "InvertedShape", "ResidualOperation", "dilated_conv_norm"]


class InvertedShape(NamedTuple):
    """What an inverted residual's name tells.

    Attributes:
        kernel: side of its depthwise convolution.
        expand: hidden width over that of its input.
    """

    kernel: int
    expand: int


INVERTED: dict[str, InvertedShape] = {
    f"mbconv_k{k}_e{e}": InvertedShape(k, e) for k in (3, 5, 7) for e in (2, 4, 6)
}
"""Name -> shape of the inverted residuals ("MobileNetV2", Sandler et al., arXiv 1801.04381)."""


class ResidualOperation(nn.Module):
    """x + branch(x).

    Args:
        branch: (B, C, H, W) -> (B, C, H, W); its last layer has no activation.
    """

    def __init__(self, *branch: nn.Module) -> None:
        """Chain the layers of the branch."""
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + cast(Tensor, self.branch(x))


def dilated_conv_norm(channels: int, kernel: int, dilation: int) -> ConvNorm:
    """A depthwise convolution with holes, and its batch norm; it keeps the size."""
    layer = ConvNorm(channels, channels, kernel, groups=channels)
    layer.c.dilation = (dilation, dilation)
    layer.c.padding = (kernel // 2 * dilation,) * 2
    return layer


def _separable(channels: int, *, kernel: int, dilation: int = 1) -> nn.Module:
    depthwise = dilated_conv_norm(channels, kernel, dilation)
    return ResidualOperation(depthwise, nn.ReLU(), ConvNorm(channels, channels))


def _separable_cost(channels: int, height: int, width: int, *, kernel: int) -> ComputeCost:
    cells = height * width
    depthwise = convolution_cost(channels, channels, kernel, cells, groups=channels)
    return depthwise.plus(convolution_cost(channels, channels, 1, cells))


def _inverted(channels: int, *, kernel: int, expand: int) -> nn.Module:
    hidden = expand * channels
    return ResidualOperation(
        ConvNorm(channels, hidden), nn.ReLU(),
        ConvNorm(hidden, hidden, kernel, groups=hidden), nn.ReLU(),
        ConvNorm(hidden, channels),
    )  # fmt: skip


def _inverted_cost(channels: int, height: int, width: int, *, kernel: int, expand: int) -> ComputeCost:
    hidden, cells = expand * channels, height * width
    parts = convolution_cost(channels, hidden, 1, cells)
    parts = parts.plus(convolution_cost(hidden, hidden, kernel, cells, groups=hidden))
    return parts.plus(convolution_cost(hidden, channels, 1, cells))


def _fused(channels: int, *, expand: int) -> nn.Module:
    hidden = expand * channels
    return ResidualOperation(ConvNorm(channels, hidden, 3), nn.ReLU(), ConvNorm(hidden, channels))


def _fused_cost(channels: int, height: int, width: int, *, expand: int) -> ComputeCost:
    hidden, cells = expand * channels, height * width
    return convolution_cost(channels, hidden, 3, cells).plus(convolution_cost(hidden, channels, 1, cells))


def _grouped(channels: int) -> nn.Module:
    groups = channels // WIDTH_STEP
    return ResidualOperation(
        ConvNorm(channels, channels, 3, groups=groups), nn.ReLU(), ConvNorm(channels, channels)
    )


def _grouped_cost(channels: int, height: int, width: int) -> ComputeCost:
    cells = height * width
    grouped = convolution_cost(channels, channels, 3, cells, groups=channels // WIDTH_STEP)
    return grouped.plus(convolution_cost(channels, channels, 1, cells))


def _no_cost(channels: int, height: int, width: int) -> ComputeCost:
    return ComputeCost()


def _identity(channels: int) -> nn.Module:
    return nn.Identity()


register_operation(Operation(SKIP, _identity, _no_cost, step=LEAST_STEP))
for _k in (3, 5, 7):
    register_operation(
        Operation(
            f"dwsep_k{_k}",
            partial(_separable, kernel=_k),
            partial(_separable_cost, kernel=_k),
            step=LEAST_STEP,
        )
    )
for _k in (3, 5):
    register_operation(
        Operation(
            f"dilated_k{_k}_d2",
            partial(_separable, kernel=_k, dilation=2),
            partial(_separable_cost, kernel=_k),
            step=LEAST_STEP,
        )
    )
for _name, (_k, _e) in INVERTED.items():
    register_operation(
        Operation(
            _name,
            partial(_inverted, kernel=_k, expand=_e),
            partial(_inverted_cost, kernel=_k, expand=_e),
            step=LEAST_STEP,
        )
    )
for _e in (1, 2, 4):
    register_operation(
        Operation(
            f"fused_k3_e{_e}", partial(_fused, expand=_e), partial(_fused_cost, expand=_e), step=LEAST_STEP
        )
    )
register_operation(Operation("grouped_k3", _grouped, _grouped_cost))
