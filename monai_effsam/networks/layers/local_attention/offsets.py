# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Local attention one window offset after the other: for heads of few channels, and with dropout.

Each of the K offsets is a view of the padded keys and values, so nothing is copied K times. Strips of rows keep what
is computed in the cache. The backward keeps query, keys, values, output and the logarithm of the softmax's
denominator, and computes the weights anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from monai_effsam.networks.layers.local_attention.window import AttentionWindow, pad_map

__all__ = ["attend_by_offset"]

_STRIP = 1 << 17
"""Values of a strip of the map that are worked on at once."""


class _Options(NamedTuple):
    """What is the same for a whole call; `seed` is that of the dropout."""

    heads: int
    window: AttentionWindow
    scale: float
    dropout: float
    seed: int


def attend_by_offset(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    window: AttentionWindow,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Local attention of (B, C, H, W) maps, any H and W; differentiable once, refuses a second derivative.

    Dropped weights are drawn from torch's global generator, through a seed that the backward uses again.
    """
    seed = int(torch.randint(1 << 62, ())) if dropout else 0
    options = _Options(heads, window, scale, dropout, seed)
    found = _OffsetAttention.apply(q, pad_map(k, window), pad_map(v, window), options)  # type: ignore[no-untyped-call]
    return cast(Tensor, found)


class _Dropping:
    """What the weights of one strip and offset after the other are multiplied with; the same for the same seed."""

    def __init__(self, options: _Options, device: torch.device) -> None:
        self.keep = 1 - options.dropout
        self.generator = torch.Generator(device).manual_seed(options.seed) if options.dropout else None

    def __call__(self, weights: Tensor) -> Tensor:
        """The next ones applied: weights of 0, or divided by the part that is kept."""
        if self.generator is None:
            return weights
        return weights * torch.empty_like(weights).bernoulli_(self.keep, generator=self.generator) / self.keep


def _strips(q: Tensor, window: AttentionWindow) -> Iterator[tuple[slice, slice]]:
    """Rows of the map (B, heads, D, H, W), and the rows of the padded map that they see."""
    height = q.shape[-2]
    step = max(1, _STRIP * height // q.numel())
    for first in range(0, height, step):
        last = min(height, first + step)
        yield slice(first, last), slice(first, last + 2 * window.reach[0])


def _at(x: Tensor, number: int, like: Tensor, window: AttentionWindow) -> Tensor:
    """View of a padded strip at one offset, with the rows and columns of `like`."""
    row, column = divmod(number, window.size[1])
    y, x_ = row * window.dilation[0], column * window.dilation[1]
    return x[..., y : y + like.shape[-2], x_ : x_ + like.shape[-1]]


def _by_head(x: Tensor, heads: int) -> Tensor:
    """View (B, heads, D, H, W) of a map (B, C, H, W)."""
    return x.view(x.shape[0], heads, -1, *x.shape[2:])


def _logits(q: Tensor, k: Tensor) -> Tensor:
    """Sum over the channels of the heads, which stay as a dimension of 1."""
    return q * k if q.shape[2] == 1 else (q * k).sum(2, keepdim=True)


def _beyond(q: Tensor, window: AttentionWindow) -> Tensor | None:
    """-inf where a padded map is not the map, if that is to be masked: (1, 1, 1, padded H, padded W)."""
    if window.border != "mask":
        return None
    (rows, columns), (height, width) = window.reach, q.shape[-2:]
    return F.pad(q.new_zeros(1, 1, 1, height, width), (columns, columns, rows, rows), value=-math.inf)


class _OffsetAttention(torch.autograd.Function):
    """Both passes written out."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, options: _Options) -> Tensor:
        """(B, C, H, W) queries, padded keys and values -> (B, C, H, W)."""
        window, count = options.window, options.window.size[0] * options.window.size[1]
        query, keys, values = (_by_head(x, options.heads) for x in (q * options.scale, k, v))
        beyond, dropping = _beyond(query, window), _Dropping(options, q.device)
        out = torch.empty_like(query)
        denominator = out.new_empty(*out.shape[:2], 1, *out.shape[3:])
        for rows, around in _strips(query, window):
            part, k_part, v_part = query[..., rows, :], keys[..., around, :], values[..., around, :]
            edge = None if beyond is None else beyond[..., around, :]

            def logits(
                number: int, part: Tensor = part, k_part: Tensor = k_part, edge: Tensor | None = edge
            ) -> Tensor:
                found = _logits(part, _at(k_part, number, part, window))
                return found if edge is None else found + _at(edge, number, part, window)

            top = logits(0)
            for number in range(1, count):
                top = torch.maximum(top, logits(number))
            total, weighted = torch.zeros_like(top), torch.zeros_like(part)
            for number in range(count):
                weights = logits(number).sub_(top).exp_()
                total += weights
                weighted.addcmul_(dropping(weights), _at(v_part, number, part, window))
            out[..., rows, :] = weighted.div_(total)
            denominator[..., rows, :] = top.add_(total.log_())
        ctx.save_for_backward(q, k, v, out, denominator)
        ctx.options = options
        return out.flatten(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, padded keys and padded values."""
        q, k, v, out, denominator = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            grads = _gradients((q, k, v), out, denominator, grad, ctx.options)
        return (*grads, None)


def _gradients(
    maps: tuple[Tensor, Tensor, Tensor], out: Tensor, denominator: Tensor, grad: Tensor, options: _Options
) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of each strip and offset computed anew, and what follows from them."""
    window, heads = options.window, options.heads
    query, keys, values = (_by_head(x, heads) for x in (maps[0] * options.scale, *maps[1:]))
    grad_out = _by_head(grad, heads)
    grads = [torch.zeros_like(x) for x in (query, keys, values)]
    beyond, dropping = _beyond(query, window), _Dropping(options, query.device)
    for rows, around in _strips(query, window):
        q, g, total = query[..., rows, :], grad_out[..., rows, :], denominator[..., rows, :]
        k, v, grad_k, grad_v = (x[..., around, :] for x in (keys, values, *grads[1:]))
        grad_q, mean = grads[0][..., rows, :], (g * out[..., rows, :]).sum(2, keepdim=True)
        for number in range(window.size[0] * window.size[1]):
            logits = _logits(q, _at(k, number, q, window))
            if beyond is not None:
                logits += _at(beyond[..., around, :], number, q, window)
            weights = logits.sub_(total).exp_()
            dropped = dropping(weights)
            _at(grad_v, number, q, window).addcmul_(dropped, g)
            grad_scores = dropped * _logits(g, _at(v, number, q, window)) - weights * mean
            grad_q.addcmul_(grad_scores, _at(k, number, q, window))
            _at(grad_k, number, q, window).addcmul_(grad_scores, q)
    grads[0] *= options.scale
    return grads[0].flatten(1, 2), grads[1].flatten(1, 2), grads[2].flatten(1, 2)
