# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Batch norms of a trained TiC network taken into the convolutions beside them, for inference and export."""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from monai_effsam.networks.blocks.mbconv import ConvNorm
from monai_effsam.networks.blocks.tic_block import TicBlock

__all__ = ["fold_tic_norms"]

_Network = TypeVar("_Network", bound=nn.Module)


@torch.no_grad()
def fold_tic_norms(network: _Network) -> _Network:
    """The network itself, its stem and blocks without batch norms: the same function in eval mode, faster.

    A block's norms stand before 1x1 convolutions, which take them in exactly. For a trained network: statistics are
    final afterwards, and the keys of its state dict are others.

    Args:
        network: a `TicClassifier`, a `TicTrunk` or what holds one; changed in place and put into eval mode.
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, ConvNorm) and isinstance(module.bn, nn.BatchNorm2d):
            module.c = fuse_conv_bn_eval(module.c, module.bn)
            module.bn = cast(nn.BatchNorm2d, nn.Identity())
        elif isinstance(module, TicBlock) and isinstance(module.norm1, nn.BatchNorm2d):
            _take_in(module.norm1, module.attention.qkv)
            _take_in(cast(nn.BatchNorm2d, module.norm2), cast(nn.Conv2d, module.mlp[0]))
            module.norm1, module.norm2 = nn.Identity(), nn.Identity()
    return network


def _take_in(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> None:
    """A norm into the 1x1 convolution after it: w (s x + t) + b = (w s) x + (w t + b)."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    weight, bias = conv.weight.flatten(1), cast(Tensor, conv.bias)
    bias += weight @ (norm.bias - mean * scale)
    conv.weight *= scale[:, None, None]
