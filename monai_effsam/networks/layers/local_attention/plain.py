# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Local attention in plain operations, for graphs: height and width stay free, any derivative exists.

One slice of the padded keys and values for each of the K offsets; of all that is made, only the K logits a head and
position are kept.
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
    batch, channels, height, width = q.shape
    heads_apart = (batch, heads, channels // heads, height, width)
    query = (q * scale).reshape(heads_apart)
    keys, values = pad_map(k, window), pad_map(v, window)
    logits = [
        (query * part.reshape(heads_apart)).sum(2, keepdim=True)
        for part in _offsets(keys, height, width, window)
    ]
    if window.border == "mask":
        rows, columns = window.reach
        beyond = F.pad(torch.zeros_like(q[:1, :1]), (columns, columns, rows, rows), value=-math.inf)
        logits = [
            one + part[:, :, None]
            for one, part in zip(logits, _offsets(beyond, height, width, window), strict=True)
        ]
    weights = torch.cat(logits, 2).softmax(2)
    found = torch.zeros_like(query)
    for number, part in enumerate(_offsets(values, height, width, window)):
        found = found + weights[:, :, number : number + 1] * part.reshape(heads_apart)
    return found.reshape(batch, channels, height, width)


def _offsets(x: Tensor, height: int, width: int, window: AttentionWindow) -> Iterator[Tensor]:
    """What each query finds at offset 0, 1, ... of its window, row by row: K slices (B, C, H, W) of a padded map."""
    for row in range(window.size[0]):
        for column in range(window.size[1]):
            y, x_ = row * window.dilation[0], column * window.dilation[1]
            yield x[:, :, y : y + height, x_ : x_ + width]
