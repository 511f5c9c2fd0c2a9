# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Local attention as matrix products: tiles of queries against the keys of the tile and of a halo around it.

A tile's keys include some that are outside the window of a query; a constant bias of -inf takes them out. Zeros of
the border are ordinary keys. Dilated windows are windows without gaps on each of the phases of the map.

The map is cut into bands of columns, copied once with their halo (`_keys`); tiles of rows are overlapping views of a
band. So the copies are (T + 2 R) / T of the map, not K times. The backward keeps query, key, value and output, and
computes the weights anew, tile by tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from monai_effsam.networks.layers.local_attention.window import AttentionWindow, pad_map

__all__ = ["attend_in_tiles"]

_COLUMNS = 16
"""Queries of a tile along a row, at most: wider ones spend more products outside the windows."""
_QUERIES = 32
"""Queries of a tile, about."""
_SCORES = 1 << 18
"""Weights that the backward holds at once: what a core's cache takes in."""
_NOWHERE = -1e30
"""Added to the logit of a masked position: its weight is 0, and a query that sees no other stays finite."""


def attend_in_tiles(
    q: Tensor, k: Tensor, v: Tensor, heads: int, window: AttentionWindow, scale: float
) -> Tensor:
    """Local attention of (B, C, H, W) maps, any H and W; differentiable once, refuses a second derivative."""
    k, v = (pad_map(x, window) if window.border == "circular" else x for x in (k, v))
    return cast(Tensor, _TiledAttention.apply(q, k, v, heads, window, scale))  # type: ignore[no-untyped-call]


def _even_tiles(side: int, at_most: int) -> tuple[int, int]:
    """How many tiles of which size cover a side: all alike, so that little is computed beyond the edge."""
    count = -(-side // at_most)
    return count, -(-side // count)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Sizes of the bands and tiles of one call.

    N = batch * phases * bands * heads is what all products run over; `down` tiles lie below each other in a band.
    """

    batch: int
    heads: int
    sides: tuple[int, int]
    window: AttentionWindow
    halo: tuple[int, int]
    down: int
    bands: int
    tile: tuple[int, int]

    @staticmethod
    def of(q: Tensor, heads: int, window: AttentionWindow) -> _Plan:
        """The plan for queries (B, C, H, W); keys come with their halo already where the border is circular."""
        batch, _, height, width = q.shape
        bands, columns = _even_tiles(-(-width // window.dilation[1]), _COLUMNS)
        down, rows = _even_tiles(-(-height // window.dilation[0]), max(1, _QUERIES // columns))
        halo = (0, 0) if window.border == "circular" else window.reach
        return _Plan(batch, heads, (height, width), window, halo, down, bands, (rows, columns))

    @property
    def key_tile(self) -> tuple[int, int]:
        """Rows and columns of the keys of a tile."""
        return self.tile[0] + self.window.size[0] - 1, self.tile[1] + self.window.size[1] - 1

    @property
    def below_and_right(self) -> tuple[int, int]:
        """Rows and columns that the tiles cover beyond the map, all phases together."""
        dy, dx = self.window.dilation
        rows, columns = self.down * self.tile[0], self.bands * self.tile[1]
        return rows * dy - self.sides[0], columns * dx - self.sides[1]

    def queries(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (N, down, queries of a tile, D)."""
        (below, right), (dy, dx) = self.below_and_right, self.window.dilation
        x = F.pad(x, (0, right, 0, below)) if below or right else x
        x = x.reshape(self.batch, self.heads, -1, self.down * self.tile[0], dy, self.bands, self.tile[1], dx)
        bands = x.permute(0, 4, 7, 5, 1, 3, 6, 2)
        return bands.reshape(-1, self.down, self.tile[0] * self.tile[1], x.shape[2]).contiguous()

    def to_map(self, tiles: Tensor) -> Tensor:
        """What `queries` made, back to (B, C, H, W) in channels_last order."""
        dy, dx = self.window.dilation
        x = tiles.reshape(self.batch, dy, dx, self.bands, self.heads, -1, self.tile[1], tiles.shape[-1])
        x = x.permute(0, 5, 1, 3, 6, 2, 4, 7)  # B rows dy bands columns dx heads D
        x = x.reshape(self.batch, x.shape[1] * dy, -1, self.heads * tiles.shape[-1])
        return x[:, : self.sides[0], : self.sides[1]].permute(0, 3, 1, 2)

    def keys(self, x: Tensor) -> Tensor:
        """(B, C, H, W), with the halo where it is circular -> bands (N, rows, columns of a key tile, D)."""
        (below, right), (dy, dx), (y, x_) = self.below_and_right, self.window.dilation, self.halo
        x = F.pad(x, (x_, x_ + right, y, y + below))
        rows, columns = x.shape[2] // dy, x.shape[3] // dx
        x = x.reshape(self.batch, self.heads, -1, rows, dy, columns, dx)
        bands = x.unfold(5, self.key_tile[1], self.tile[1])  # B heads D rows dy bands dx columns
        bands = bands.permute(0, 4, 6, 5, 1, 3, 7, 2)
        return bands.reshape(-1, rows, self.key_tile[1], x.shape[2]).contiguous()

    def overlapping(self, bands: Tensor) -> Tensor:
        """Bands of `keys` -> view (N, down, keys of a tile, D)."""
        columns = self.key_tile[1]
        flat = bands.view(bands.shape[0], -1, bands.shape[-1])
        return flat.unfold(1, self.key_tile[0] * columns, self.tile[0] * columns).transpose(-1, -2)

    def sum_to_map(self, bands: Tensor) -> Tensor:
        """The transpose of `keys`: positions that several bands hold are added."""
        dy, dx = self.window.dilation
        rows, wide, channels = bands.shape[1:]
        bands = bands.view(self.batch, dy, dx, self.bands, self.heads, rows, wide, channels)
        step = self.tile[1]
        columns = self.bands * step + wide - step
        x = bands.new_zeros(self.batch, rows, dy, columns, dx, self.heads, channels)
        by_band = bands.permute(3, 0, 5, 1, 6, 2, 4, 7)
        for number, band in enumerate(by_band):
            x[:, :, :, number * step : number * step + wide] += band
        x = x.view(self.batch, rows * dy, columns * dx, -1)
        (y, x_), reach = self.halo, self.window.reach
        sides = tuple(side + 2 * (r - h) for side, r, h in zip(self.sides, reach, self.halo, strict=True))
        return x[:, y : y + sides[0], x_ : x_ + sides[1]].permute(0, 3, 1, 2)

    def bias(self, like: Tensor) -> Tensor:
        """(queries of a tile, keys of a tile): 0 inside the window of the query, -inf outside."""
        inside = []
        for length, keys, size in zip(self.tile, self.key_tile, self.window.size, strict=True):
            offset = (
                torch.arange(keys, device=like.device) - torch.arange(length, device=like.device)[:, None]
            )
            inside.append((offset >= 0) & (offset < size))
        both = inside[0][:, None, :, None] & inside[1][None, :, None, :]
        bias = like.new_zeros(both.shape).masked_fill_(~both, -math.inf)
        return bias.view(self.tile[0] * self.tile[1], -1)

    def beyond(self, q: Tensor) -> Tensor:
        """Bands of one channel: 0 on the map, `_NOWHERE` beyond its border."""
        ones = q.new_ones(1, 1, 1, 1).expand(self.batch, self.heads, *self.sides)
        return (1 - self.keys(ones)) * _NOWHERE


class _TiledAttention(torch.autograd.Function):
    """Forward with the library's attention on all tiles at once, backward written out."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, window: AttentionWindow, scale: float
    ) -> Tensor:
        """(B, C, H, W) maps; `k` and `v` with the halo where the border is circular."""
        plan = _Plan.of(q, heads, window)
        queries, keys, values = plan.queries(q), plan.keys(k), plan.keys(v)
        channels = values.shape[-1]
        if window.border == "mask":  # one channel more, in which every query is 1, says where the map ends
            queries, keys = F.pad(queries, (0, 1), value=1.0), torch.cat([keys, plan.beyond(q)], -1)
            values = F.pad(values, (0, 1))
        found = F.scaled_dot_product_attention(
            queries, plan.overlapping(keys), plan.overlapping(values), plan.bias(q), scale=scale
        )
        out = plan.to_map(found[..., :channels])
        ctx.save_for_backward(q, k, v, out)
        ctx.options = heads, window, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k and v."""
        q, k, v, out = ctx.saved_tensors
        heads, window, scale = ctx.options
        plan = _Plan.of(q, heads, window)
        with torch.autocast(q.device.type, enabled=False):
            grads = _gradients(plan, (q, k, v), out, grad, scale)
        return (*grads, None, None, None)


def _gradients(
    plan: _Plan, maps: tuple[Tensor, Tensor, Tensor], out: Tensor, grad: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of each row of tiles computed anew, and what follows from them."""
    q, keys, values = plan.queries(maps[0]), plan.keys(maps[1]), plan.keys(maps[2])
    grad_out, bias = plan.queries(grad), plan.bias(maps[0])
    weighted = (grad_out * plan.queries(out)).sum(-1, keepdim=True)
    beyond = plan.overlapping(plan.beyond(maps[0])) if plan.window.border == "mask" else None
    grad_q, grad_keys, grad_values = torch.empty_like(q), torch.zeros_like(keys), torch.zeros_like(values)
    k, v, grad_k, grad_v = (plan.overlapping(bands) for bands in (keys, values, grad_keys, grad_values))
    some = max(1, _SCORES // bias.numel())
    for first in range(0, len(q), some):
        for row in range(plan.down):
            at = slice(first, first + some), row
            weights = torch.baddbmm(bias, q[at], k[at].transpose(1, 2), alpha=scale)
            if beyond is not None:
                weights += beyond[at].transpose(1, 2)
            weights = weights.softmax(-1)
            grad_v[at] += torch.bmm(weights.transpose(1, 2), grad_out[at])
            grad_scores = torch.bmm(grad_out[at], v[at].transpose(1, 2)).sub_(weighted[at]).mul_(weights)
            torch.mul(torch.bmm(grad_scores, k[at]), scale, out=grad_q[at])
            grad_k[at] += torch.bmm(grad_scores.transpose(1, 2), q[at])
    return plan.to_map(grad_q), plan.sum_to_map(grad_keys).mul_(scale), plan.sum_to_map(grad_values)
