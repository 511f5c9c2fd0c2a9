# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Local attention as it is defined, with a copy of the map for every offset: the reference that others are held to."""

import math

import pytest
import torch
import torch.nn.functional as F


def _unfolded(x, heads, window, value=0.0):
    """(B, C, H, W) -> (B, heads, D, K, HW)."""
    rows, columns = window.reach
    mode = "circular" if window.border == "circular" else "constant"
    padded = F.pad(
        x, (columns, columns, rows, rows), mode, **({} if mode == "circular" else {"value": value})
    )
    return F.unfold(padded, window.size, dilation=window.dilation).view(
        x.shape[0], heads, x.shape[1] // heads, -1, x.shape[2] * x.shape[3]
    )


def _by_unfold(q, k, v, window, heads=1):
    channels = q.shape[1] // heads
    logits = (q.view(len(q), heads, channels, 1, -1) * _unfolded(k, heads, window)).sum(2) * channels**-0.5
    if window.border == "mask":
        logits = logits + torch.where(
            _unfolded(torch.ones_like(q[:, :heads]), heads, window)[:, :, 0] > 0, 0, -math.inf
        )
    return (logits.softmax(2).unsqueeze(2) * _unfolded(v, heads, window)).sum(3).view(q.shape)


@pytest.fixture(scope="session")
def by_unfold():
    """A function: q, k, v, window, heads -> local attention; any derivative exists."""
    return _by_unfold


@pytest.fixture
def noise():
    """A function: shape -> float64 numbers, others at every call, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
