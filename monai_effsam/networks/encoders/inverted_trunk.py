# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Stem and entries of trunks made of inverted residuals: MobileNetV2's, and EfficientNet-Lite's with its padding."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.networks.blocks.mbconv import ConvNorm
from monai_effsam.networks.blocks.operations import INVERTED

__all__ = ["STEM_WIDTHS", "InvertedStem", "clipped", "inverted_entry"]

STEM_WIDTHS = (32, 16)
"""C of the first convolution and of the map at stride 2, in MobileNetV2 and EfficientNet-Lite0 alike."""


class _UnevenConvolution(torch.autograd.Function):
    """A convolution of stride 2 padded otherwise at the end: in an exported graph one node, where a padding by itself
    costs as much as a convolution.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, low: int, high: int, groups: int, *bias: Tensor
    ) -> Tensor:
        x = F.pad(x, (low, high, low, high))
        return F.conv2d(x, weight, bias[0] if bias else None, stride=2, groups=groups)

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, low: int, high: int, groups: int, *bias: Any) -> Any:
        pads = [low, low, high, high]
        return g.op("Conv", x, weight, *bias, pads_i=pads, strides_i=[2, 2], group_i=groups)


class _SameConvNorm(ConvNorm):
    """`ConvNorm` of stride 2 on maps of even sides, padded as TensorFlow does: k - 2 cells, the odd one at the end."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / 2, W / 2)."""
        kernel = self.c.kernel_size[0]
        low, high = (kernel - 2) // 2, (kernel - 1) // 2
        if torch.onnx.is_in_onnx_export():
            bias = () if self.c.bias is None else (self.c.bias,)
            found = _UnevenConvolution.apply(x, self.c.weight, low, high, self.c.groups, *bias)  # type: ignore[no-untyped-call]
            return cast(Tensor, self.bn(found))
        return super().forward(F.pad(x, (low, high, low, high)))


def _halving(inputs: int, outputs: int, kernel: int, groups: int, same: bool) -> ConvNorm:
    if not same:
        return ConvNorm(inputs, outputs, kernel, 2, groups)
    layer = _SameConvNorm(inputs, outputs, kernel, 2, groups)
    layer.c.padding = (0, 0)
    return layer


class InvertedStem(nn.ModuleList):
    """3x3 convolution of stride 2, then a depthwise-separable block without a way around; ReLU6 between.

    Args:
        same: padding as TensorFlow's.
    """

    def __init__(self, *, same: bool = False) -> None:
        """Build."""
        wide, narrow = STEM_WIDTHS
        super().__init__(
            [
                nn.Sequential(_halving(3, wide, 3, 1, same), nn.ReLU6()),
                nn.Sequential(ConvNorm(wide, wide, 3, groups=wide), nn.ReLU6(), ConvNorm(wide, narrow)),
            ]
        )
        self.channels = (narrow,)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> its map at stride 2, (B, 16, H / 2, W / 2)."""
        return [cast(Tensor, self[1](self[0](image)))]


def inverted_entry(inputs: int, outputs: int, *, name: str, stride: int, same: bool = False) -> nn.Sequential:
    """An inverted residual without a way around: (B, C, H, W) -> (B, C', H / stride, W / stride).

    Args:
        inputs: C.
        outputs: C'.
        name: one of `INVERTED`.
        stride: 1 or 2.
        same: padding as TensorFlow's.
    """
    kernel, expand = INVERTED[name]
    hidden = expand * inputs
    depthwise = ConvNorm(hidden, hidden, kernel, groups=hidden)
    if stride == 2:
        depthwise = _halving(hidden, hidden, kernel, hidden, same)
    return nn.Sequential(
        ConvNorm(inputs, hidden), nn.ReLU6(), depthwise, nn.ReLU6(), ConvNorm(hidden, outputs)
    )


def clipped(root: nn.Module) -> nn.Module:
    """A module with every ReLU in it made a ReLU6, which these trunks were trained with."""
    for name, module in list(root.named_modules()):
        if type(module) is nn.ReLU:
            parent, _, last = name.rpartition(".")
            setattr(root.get_submodule(parent), last, nn.ReLU6())
    return root
