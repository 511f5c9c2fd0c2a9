# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""TinyViT's transformer block: windowed attention, depthwise convolution, MLP, modality controllers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_effsam.errors import ShapeError
from monai_effsam.networks.blocks.mbconv import ConvNorm
from monai_effsam.networks.blocks.modality_controller import ControllerBank, ControllerTokens, TokenMlp

__all__ = ["BiasedWindowAttention", "TinyVitBlock"]


def _distance_index(window: int) -> Tensor:
    """(w*w, w*w): index |dy| * w + |dx| of every pair of positions in a window."""
    cell = torch.arange(window * window)
    row, column = cell // window, cell % window
    return (row[:, None] - row).abs() * window + (column[:, None] - column).abs()


class BiasedWindowAttention(nn.Module):
    """Multi-head attention inside windows with a learned bias for each distance (|dy|, |dx|).

    softmax([q k^T / sqrt(d) + bias(|dy|, |dx|), q t^T / sqrt(d) + b]) [v; t']: controller tokens t, t' join
    keys and values, never the queries ("ESP-MedSAM"); without tokens it is TinyViT's attention. The biases are
    gathered in `forward`, so they may change at any time.

    Args:
        channels: C; must be divisible by `heads`.
        heads: attention heads.
        window: side of a window [cells].

    Raises:
        ShapeError: `channels` not divisible by `heads`.
    """

    distance_index: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        """Build; linear layers truncated normal (0.02), biases 0."""
        super().__init__()
        if channels % heads:
            raise ShapeError(
                f"BiasedWindowAttention: channels is {channels}, expected a multiple of heads ({heads})."
                " Change one of them."
            )
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.register_buffer("distance_index", _distance_index(window), persistent=False)
        for layer in (self.qkv, self.proj):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, extra: ControllerTokens | None = None) -> Tensor:
        """(windows, w*w, C) -> (windows, w*w, C)."""
        count, cells, channels = x.shape
        qkv = self.qkv(self.norm(x)).view(count, cells, self.heads, -1).transpose(1, 2)
        q, k, v = qkv.chunk(3, dim=-1)  # (windows, heads, w*w, d)
        q = q * q.shape[-1] ** -0.5
        logits = q @ k.transpose(-1, -2) + self.attention_biases[:, self.distance_index]
        if extra is None:
            out = logits.softmax(-1) @ v
        else:
            more = q @ extra.key.transpose(-1, -2) + extra.bias  # (windows, heads, w*w, T)
            weights = torch.cat([logits, more], dim=-1).softmax(-1)
            out = weights[..., :cells] @ v + weights[..., cells:] @ extra.value
        return cast(Tensor, self.proj(out.transpose(1, 2).reshape(count, cells, channels)))


class TinyVitBlock(nn.Module):
    """One TinyViT block; with `controllers`, ESP-MedSAM's semi-shared block.

    x + attention(x) in windows; depthwise 3x3 with batch norm (no residual); then x + MLP(x) + expert_m(x).
    Maps are padded with zeros right and bottom to whole windows; padded cells take part in the attention.

    Args:
        channels: C.
        heads: attention heads.
        window: side of a window [cells].
        controllers: the modality controllers, or None for the plain block.
    """

    def __init__(
        self, channels: int, heads: int, window: int, controllers: ControllerBank | None = None
    ) -> None:
        """Build the parts; the controllers are used as given."""
        super().__init__()
        self.window = window
        self.attn = BiasedWindowAttention(channels, heads, window)
        self.local_conv = ConvNorm(channels, channels, 3, groups=channels)
        self.mlp = TokenMlp(channels, 4 * channels)
        self.controllers = controllers

    def _attend(self, x: Tensor, modalities: Sequence[int]) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C): cut into windows, attend, put together."""
        batch, height, width, channels = x.shape
        side = self.window
        padded = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = padded.shape[1] // side, padded.shape[2] // side
        windows = padded.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        extra = None
        if self.controllers is not None and modalities:
            extra = self.controllers.tokens_of(modalities, rows * columns)
        out = self.attn(windows.reshape(-1, side * side, channels), extra)
        out = out.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        return cast(Tensor, out.reshape(padded.shape)[:, :height, :width])

    def forward(self, x: Tensor, modalities: Sequence[int] = ()) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), any H, W; fastest for channels_last maps.

        Args:
            x: the map.
            modalities: modality index of each image; not read without controllers, and empty to leave them out.
        """
        x = x.permute(0, 2, 3, 1)
        x = x + self._attend(x, modalities)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out = x + self.mlp(x)
        if self.controllers is not None and modalities:
            out = out + self.controllers.expert(x, modalities)
        return out.permute(0, 3, 1, 2)
