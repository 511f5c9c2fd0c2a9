# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Local attention: the checks, the number format, and the choice among its forms."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from monai_effsam.errors import ShapeError, SpecError, UnknownNameError, UsageError
from monai_effsam.networks.layers.local_attention.offsets import attend_by_offset
from monai_effsam.networks.layers.local_attention.plain import attend_plainly
from monai_effsam.networks.layers.local_attention.tiles import attend_in_tiles
from monai_effsam.networks.layers.local_attention.triton_form import (
    attend_in_triton,
    check_triton,
    triton_serves,
)
from monai_effsam.networks.layers.local_attention.window import AttentionWindow

__all__ = ["FORMS", "Form", "local_attention"]

Form = Literal["auto", "triton", "tiles", "offsets", "plain"]

FORMS: tuple[Form, ...] = ("auto", "triton", "tiles", "offsets", "plain")
"""How it is computed; `auto` takes `plain` while a graph is traced, `triton` on CUDA where it is installed, `offsets`
where matrix products do not pay."""

_PRODUCT_CHANNELS = 8
"""Channels of a head from which on matrix products pay."""


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: AttentionWindow,
    *,
    heads: int = 1,
    dropout: float = 0.0,
    form: Form = "auto",
) -> Tensor:
    """Attention of every position to the K positions of the window around it.

    out_c(p) = sum_n a_n(p) v_c(p + o_n), a = softmax_n(D^-1/2 sum_c q_c(p) k_c(p + o_n)) over the window's offsets
    o_n, in each head of D = C / heads channels by itself. "TiC: Exploring Vision Transformer in Convolution",
    arXiv 2310.04134, whose release has one head and zeros beyond the border (`AttentionWindow.border`).

    Half-precision maps are computed in float32; `triton` reads them as they are and sums in float32. The fast forms
    can be differentiated once and say so when asked for a second derivative; `plain` has all of them.

    Args:
        q: queries, (B, C, H, W), any H and W.
        k: keys, as `q`.
        v: values, as `q`.
        window: size, dilation and border.
        heads: groups of channels; 1 in the release, C is the depthwise form.
        dropout: part of the weights set to 0, the others divided by 1 - dropout; for training.
        form: one of `FORMS`.

    Returns:
        (B, C, H, W) in the number format of `q`.

    Raises:
        ShapeError: maps of different shapes, an empty one, or one on which a circular window meets itself.
        SpecError: heads that do not divide the channels.
        UnknownNameError: another form.
        UsageError: a dropout outside 0..1, or with a form that has none; `triton` off CUDA.
        MissingExtraError: `triton` where it is not installed.
    """
    _check(q, k, v, window, heads)
    form = _choose(form, q, q.shape[1] // heads, dropout)
    half = form == "triton" and q.dtype in (torch.float16, torch.bfloat16)
    kind = q.dtype if half or q.dtype in (torch.float32, torch.float64) else torch.float32
    scale = (q.shape[1] // heads) ** -0.5
    with torch.autocast(q.device.type, enabled=False):
        maps = q.to(kind), k.to(kind), v.to(kind)
        if form == "triton":
            found = attend_in_triton(*maps, heads, window, scale)
        elif form == "tiles":
            found = attend_in_tiles(*maps, heads, window, scale)
        elif form == "offsets":
            found = attend_by_offset(*maps, heads, window, scale, dropout)
        else:
            found = attend_plainly(*maps, heads, window, scale)
    return found.to(q.dtype)


def _choose(form: Form, q: Tensor, channels: int, dropout: float) -> Form:
    """The form that `auto` stands for."""
    if form not in FORMS:
        raise UnknownNameError("form", form, FORMS)
    if not 0 <= dropout < 1:
        raise UsageError(
            f"local_attention: dropout is {dropout}, expected 0 <= dropout < 1. Choose a smaller part."
        )
    if dropout and form not in ("auto", "offsets"):
        raise UsageError(
            f"local_attention: dropout is {dropout} in the form '{form}', expected 0. Take the form 'offsets'."
        )
    if form == "triton":
        check_triton(q, channels)
    if form != "auto":
        return form
    if dropout:
        return "offsets"
    if torch.onnx.is_in_onnx_export() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return "plain"
    if triton_serves(q, channels):
        return "triton"
    return "tiles" if channels >= _PRODUCT_CHANNELS else "offsets"


def _check(q: Tensor, k: Tensor, v: Tensor, window: AttentionWindow, heads: int) -> None:
    """Refuse maps that do not belong together."""
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ShapeError(
            f"local_attention: q, k and v have shapes {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)},"
            " expected the same (B, C, H, W). Make them of one map."
        )
    if heads < 1 or q.shape[1] % heads:
        raise SpecError(
            f"local_attention: heads is {heads} for {q.shape[1]} channels, expected a divisor of them."
            f" Choose one of {_divisors(q.shape[1])}."
        )
    window.check_map(*q.shape[2:])


def _divisors(number: int) -> str:
    """Those of a number, for a message."""
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)
