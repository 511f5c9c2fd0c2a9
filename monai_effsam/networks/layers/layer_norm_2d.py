# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Normalisation over the channels of every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LayerNorm2d"]


class LayerNorm2d(nn.Module):
    """Layer normalisation of a map over its channels, each pixel by itself.

    out = weight * (x - mean_C(x)) / sqrt(var_C(x) + eps) + bias. The norm of segment-anything's neck, prompt
    encoder and decoder, with its state-dict keys `weight` and `bias`.

    Args:
        channels: C of the map.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        """Start as the plain norm: weight 1, bias 0."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), any H, W; without a copy when `x` is in channels_last order."""
        normed = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)
