# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Local attention against unfold, and against PyTorch's convolutions of the same shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_effsam.evaluation.attention_speed.turns import MachineLimits, times_in_turns_of
from monai_effsam.networks.layers import AttentionWindow, local_attention

__all__ = ["MODES", "OPERATORS", "Shape", "operator_call", "operator_times"]


class Shape(NamedTuple):
    """Sizes of the comparison: one image of C channels."""

    channels: int = 64
    heads: int = 2
    side: int = 128


MODES = ("inference", "forward + backward")


def _by_unfold(q: Tensor, k: Tensor, v: Tensor, size: int, heads: int) -> Tensor:
    """Local attention as in TiC's release: a copy of keys and of values for each offset of the window."""
    batch, channels, height, width = q.shape
    shape = (batch, heads, channels // heads, size * size, height * width)
    keys, values = (F.unfold(x, size, padding=size // 2).view(shape) for x in (k, v))
    logits = (q.reshape(*shape[:3], 1, -1) * keys).sum(2) * shape[2] ** -0.5
    return (logits.softmax(2).unsqueeze(2) * values).sum(3).view(q.shape)


def _ours(q: Tensor, k: Tensor, v: Tensor, size: int, heads: int) -> Tensor:
    return local_attention(q, k, v, AttentionWindow((size, size)), heads=heads)


OPERATORS = ("local attention", "unfold", "convolution", "depthwise convolution")


def operator_call(operator: str, size: int, shape: Shape, mode: str) -> Callable[[], Any]:
    """A function of no arguments that runs an operator of `OPERATORS` once, in a mode of `MODES`."""
    x, *others = torch.randn(3, 1, shape.channels, shape.side, shape.side).unbind(0)
    if operator in ("local attention", "unfold"):
        attention = _ours if operator == "local attention" else _by_unfold
        leaves = [x, *others]

        def run() -> Tensor:
            return attention(leaves[0], leaves[1], leaves[2], size, shape.heads)

    else:
        groups = shape.channels if operator == "depthwise convolution" else 1
        leaves = [x, torch.randn(shape.channels, shape.channels // groups, size, size)]

        def run() -> Tensor:
            return F.conv2d(leaves[0], leaves[1], padding=size // 2, groups=groups)

    if mode == "inference":
        return torch.inference_mode()(run)
    grad = torch.randn_like(x)
    for leaf in leaves:
        leaf.requires_grad_()
    return lambda: torch.autograd.grad(run(), leaves, grad)


def operator_times(size: int, shape: Shape, mode: str, rounds: int, reached: MachineLimits) -> dict[str, Any]:
    """Times of all operators in turns [ms], how many times faster ours is, and its limit.

    The limit of local attention: 4 K C operations a position, three maps read and one written; backward 10 K C more,
    five read and three written. Of a convolution: 2 K C C, or 2 K C depthwise; backward twice that.
    """
    times = times_in_turns_of({name: operator_call(name, size, shape, mode) for name in OPERATORS}, rounds)
    passes = 1 if mode == "inference" else 3
    positions, window = shape.side**2, size * size
    a_map = 4.0 * shape.channels * positions
    attention = 4 if passes == 1 else 14
    work = {
        "local attention": (
            attention * window * shape.channels * positions,
            a_map * (4 if passes == 1 else 12),
        ),
        "convolution": (2 * passes * window * shape.channels**2 * positions, a_map * 2 * passes),
        "depthwise convolution": (2 * passes * window * shape.channels * positions, a_map * 2 * passes),
    }
    return {
        "window": size,
        "mode": mode,
        "ms": times,
        "limit_ms": {name: reached.least_ms(*amounts) for name, amounts in work.items()},
        "faster_than_unfold": times["unfold"] / times["local attention"],
        "slower_than_convolution": times["local attention"] / times["convolution"],
        "slower_than_depthwise": times["local attention"] / times["depthwise convolution"],
    }
