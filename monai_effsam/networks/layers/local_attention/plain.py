# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Local attention in plain operations, for graphs: height and width stay free, any derivative exists.

One crop of the padded keys and values for each of the K offsets; of all that is made, only the K logits of each head
and position are kept. Crops count from both ends of the map, so that a graph need not work out its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_effsam.networks.layers.local_attention.window import AttentionWindow, pad_map

__all__ = ["attend_plainly"]


def attend_plainly(
    q: Tensor, k: Tensor, v: Tensor, heads: int, window: AttentionWindow, scale: float
) -> Tensor:
    """Local attention of (B, C, H, W) maps, any H and W."""
    by_head = q.shape[0] * heads, q.shape[1] // heads, q.shape[2], q.shape[3]
    query, keys, values = (q * scale).reshape(by_head), k.reshape(by_head), v.reshape(by_head)
    logits = [(query * key).sum(1, keepdim=True) for key in _offsets(pad_map(keys, window), window)]
    if window.border == "mask":
        rows, columns = window.reach
        beyond = F.pad(torch.zeros_like(query[:1, :1]), (columns, columns, rows, rows), value=-math.inf)
        logits = [one + edge for one, edge in zip(logits, _offsets(beyond, window), strict=True)]
    every = torch.cat(logits, 1)
    weights = (every - every.amax(1, keepdim=True)).exp()
    parts = zip(torch.split(weights, 1, 1), _offsets(pad_map(values, window), window), strict=True)
    found = sum(weight * value for weight, value in parts) / weights.sum(1, keepdim=True)
    return found.reshape(q.shape)


def _offsets(x: Tensor, window: AttentionWindow) -> Iterator[Tensor]:
    """What each query finds at the offsets of its window, column by column: K crops (N, D, H, W) of a padded map.

    Whole columns first: crops of rows alone are copied in long runs.
    """
    rows, columns = window.reach
    for column in range(window.size[1]):
        left = column * window.dilation[1]
        shifted = x[..., left : (left - 2 * columns) or None]
        for row in range(window.size[0]):
            top = row * window.dilation[0]
            yield shifted[:, :, top : (top - 2 * rows) or None]
