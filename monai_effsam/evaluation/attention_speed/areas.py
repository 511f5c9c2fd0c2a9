# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Time against image area: a TiC trunk, one of its attentions, and global attention on the same map."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from monai_effsam.evaluation.attention_speed.turns import times_in_turns_of
from monai_effsam.networks.layers import AttentionWindow, local_attention
from monai_effsam.networks.nets import tic_features

__all__ = ["area_exponent", "area_times"]

_STRIDE = 16
"""Image pixels a step of the map that both attentions get: that of a ViT, and of the trunk's third stage."""
_HEAD_CHANNELS = 32


@torch.inference_mode()
def area_times(
    sides: Sequence[int], size: str, rounds: int, largest_global: int
) -> dict[int, dict[str, float]]:
    """Side of the image [px] -> times [ms] of the whole trunk, of a local and of a global attention at stride 16.

    Args:
        sides: of square images.
        size: of the trunk, a name in `TIC_SIZES`.
        rounds: turns that count.
        largest_global: side above which global attention is left out, since it takes minutes.
    """
    trunk = tic_features(size).eval()
    channels = trunk.channels[2]
    found = {}
    for side in sides:
        rows = side // _STRIDE
        image, maps = torch.randn(1, 3, side, side), torch.randn(3, 1, channels, rows, rows)
        calls: dict[str, Callable[[], Any]] = {
            "trunk": partial(trunk, image),
            "local": partial(
                local_attention,
                maps[0],
                maps[1],
                maps[2],
                AttentionWindow(),
                heads=channels // _HEAD_CHANNELS,
            ),
        }
        if side <= largest_global:
            tokens = maps.reshape(3, 1, -1, _HEAD_CHANNELS, rows * rows).transpose(-1, -2).contiguous()
            calls["global"] = partial(F.scaled_dot_product_attention, tokens[0], tokens[1], tokens[2])
        found[side] = times_in_turns_of(calls, rounds)
    return found


def area_exponent(times: Mapping[int, float]) -> float:
    """Slope of log(time) over log(area) by least squares: 1 is linear in the area, 2 quadratic.

    Args:
        times: side -> time, of at least two sides.
    """
    points = [(2 * math.log(side), math.log(time)) for side, time in times.items()]
    x_mean, y_mean = (sum(column) / len(points) for column in zip(*points, strict=True))
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / sum((x - x_mean) ** 2 for x, _ in points)
