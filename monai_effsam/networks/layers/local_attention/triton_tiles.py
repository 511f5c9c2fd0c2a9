# Licensed under the Apache License, Version 2.0 (see LICENSE).
# ruff: noqa: ANN001, ANN201, PLR0913
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, no-untyped-call, untyped-decorator"
"""Triton kernels of local attention as matrix products: for heads of 16 channels and more.

A program multiplies its tile with the tile and its halo, N positions at a time, takes out the pairs that are not in
a window, and keeps the softmax as it goes. The backward works the weights out anew from their logarithmic sums: one
kernel by tiles of queries, one by tiles of keys that gathers from the queries around; so nothing is added atomically
and two runs agree to the bit. Sums are in single precision, or double where the maps are; logits are in base 2.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.runtime import JITFunction

from monai_effsam.networks.layers.local_attention.triton_place import (
    around,
    dense,
    head_of,
    inside,
    own_bits,
    read,
    tile_origin,
    tile_positions,
    write,
)

__all__ = ["INTERPRETED", "attend", "to_keys_and_values", "to_queries"]

# fmt: off

@triton.jit
def attend(
    q, k, v, out, sums, height, width, heads,
    q_b, q_c, q_p, k_b, k_c, k_p, v_b, v_c, v_p,
    SCALE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    N: tl.constexpr, WRAP: tl.constexpr, ZEROS: tl.constexpr, LAST: tl.constexpr, PRECISION: tl.constexpr,
):
    """The attention, and the base-2 logarithms of the softmax's denominators."""
    ACC: tl.constexpr = sums.dtype.element_ty
    y, x, plane = tile_origin(height, width, DY, DX, TY, TX)
    _, _, position, exists = tile_positions(y, x, height, width, DY, DX, TY, TX)
    query = read(head_of(q, plane, heads, q_b, q_c, D), q_c, q_p, position, exists, D, BLOCK_D, LAST)
    keys, values = head_of(k, plane, heads, k_b, k_c, D), head_of(v, plane, heads, v_b, v_c, D)
    own = own_bits(exists, TY, TX)
    top = tl.full([TY * TX], -1e30, ACC)  # not -inf: a block may hold nothing that a query sees
    total = tl.zeros([TY * TX], ACC)
    weighted = tl.zeros([TY * TX, BLOCK_D], ACC)
    for start in range(0, (TY + KH - 1) * (TX + KW - 1), N):
        at, there, outside = around(start, y, x, height, width, KH, KW, DY, DX, TY, TX, N, WRAP, ZEROS)
        key = read(keys, k_c, k_p, at, there, D, BLOCK_D, LAST)
        value = read(values, v_c, v_p, at, there, D, BLOCK_D, LAST)
        logits = tl.dot(query, tl.trans(key), input_precision=PRECISION) * (SCALE * 1.4426950408889634)
        logits = tl.where(inside(own, outside), logits, float("-inf"))
        higher = tl.maximum(top, tl.max(logits, 1))
        shrink = tl.exp2(top - higher)
        weights = tl.exp2(logits - higher[:, None])
        total = total * shrink + tl.sum(weights, 1)
        weighted = tl.dot(
            weights.to(value.dtype), value, weighted * shrink[:, None], input_precision=PRECISION, out_dtype=ACC
        )
        top = higher
    total = tl.where(exists, total, 1.0)
    pointer, step_c, step_p = dense(out, plane, heads, height * width, D, LAST)
    write(pointer, step_c, step_p, position, exists, weighted / total[:, None], D, BLOCK_D, LAST)
    area = plane.to(tl.int64) * height * width
    tl.store(sums + area + position, top + tl.log2(total), mask=exists)


@triton.jit
def to_queries(
    q, k, v, out, grad, sums, means, grad_q,
    height, width, heads,
    q_b, q_c, q_p, k_b, k_c, k_p, v_b, v_c, v_p,
    g_b, g_c, g_p,
    SCALE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    N: tl.constexpr, WRAP: tl.constexpr, ZEROS: tl.constexpr, LAST: tl.constexpr, PRECISION: tl.constexpr,
):
    """Gradient of the queries, and each query's sum of `grad * out`, which the keys need as well."""
    ACC: tl.constexpr = sums.dtype.element_ty
    y, x, plane = tile_origin(height, width, DY, DX, TY, TX)
    _, _, position, exists = tile_positions(y, x, height, width, DY, DX, TY, TX)
    query = read(head_of(q, plane, heads, q_b, q_c, D), q_c, q_p, position, exists, D, BLOCK_D, LAST)
    given = read(head_of(grad, plane, heads, g_b, g_c, D), g_c, g_p, position, exists, D, BLOCK_D, LAST)
    keys, values = head_of(k, plane, heads, k_b, k_c, D), head_of(v, plane, heads, v_b, v_c, D)
    pointer, step_c, step_p = dense(out, plane, heads, height * width, D, LAST)
    found = read(pointer, step_c, step_p, position, exists, D, BLOCK_D, LAST)
    area = plane.to(tl.int64) * height * width
    total = tl.load(sums + area + position, mask=exists, other=0.0)
    mean = tl.sum(given.to(ACC) * found.to(ACC), 1)
    tl.store(means + area + position, mean, mask=exists)
    own = own_bits(exists, TY, TX)
    gathered = tl.zeros([TY * TX, BLOCK_D], ACC)
    for start in range(0, (TY + KH - 1) * (TX + KW - 1), N):
        at, there, outside = around(start, y, x, height, width, KH, KW, DY, DX, TY, TX, N, WRAP, ZEROS)
        key = read(keys, k_c, k_p, at, there, D, BLOCK_D, LAST)
        value = read(values, v_c, v_p, at, there, D, BLOCK_D, LAST)
        logits = tl.dot(query, tl.trans(key), input_precision=PRECISION) * (SCALE * 1.4426950408889634)
        weights = tl.exp2(tl.where(inside(own, outside), logits - total[:, None], float("-inf")))
        scores = weights * (tl.dot(given, tl.trans(value), input_precision=PRECISION) - mean[:, None])
        gathered = tl.dot(scores.to(key.dtype), key, gathered, input_precision=PRECISION, out_dtype=ACC)
    pointer, step_c, step_p = dense(grad_q, plane, heads, height * width, D, LAST)
    write(pointer, step_c, step_p, position, exists, gathered * SCALE, D, BLOCK_D, LAST)


@triton.jit
def to_keys_and_values(
    q, k, v, grad, sums, means, grad_k, grad_v,
    height, width, heads,
    q_b, q_c, q_p, k_b, k_c, k_p, v_b, v_c, v_p,
    g_b, g_c, g_p,
    SCALE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    N: tl.constexpr, WRAP: tl.constexpr, LAST: tl.constexpr, PRECISION: tl.constexpr,
):
    """Gradients of keys and values; the tile's are keys, and a window of odd size looks the same from them."""
    ACC: tl.constexpr = sums.dtype.element_ty
    y, x, plane = tile_origin(height, width, DY, DX, TY, TX)
    _, _, position, exists = tile_positions(y, x, height, width, DY, DX, TY, TX)
    key = read(head_of(k, plane, heads, k_b, k_c, D), k_c, k_p, position, exists, D, BLOCK_D, LAST)
    value = read(head_of(v, plane, heads, v_b, v_c, D), v_c, v_p, position, exists, D, BLOCK_D, LAST)
    queries, grads = head_of(q, plane, heads, q_b, q_c, D), head_of(grad, plane, heads, g_b, g_c, D)
    area = plane.to(tl.int64) * height * width
    own = own_bits(exists, TY, TX)
    to_key = tl.zeros([TY * TX, BLOCK_D], ACC)
    to_value = tl.zeros([TY * TX, BLOCK_D], ACC)
    for start in range(0, (TY + KH - 1) * (TX + KW - 1), N):
        at, there, outside = around(start, y, x, height, width, KH, KW, DY, DX, TY, TX, N, WRAP, False)
        query = read(queries, q_c, q_p, at, there, D, BLOCK_D, LAST)
        given = read(grads, g_c, g_p, at, there, D, BLOCK_D, LAST)
        total = tl.load(sums + area + at, mask=there, other=0.0)
        mean = tl.load(means + area + at, mask=there, other=0.0)
        logits = tl.dot(key, tl.trans(query), input_precision=PRECISION) * (SCALE * 1.4426950408889634)
        weights = tl.exp2(tl.where(inside(own, outside), logits - total[None, :], float("-inf")))
        to_value = tl.dot(weights.to(given.dtype), given, to_value, input_precision=PRECISION, out_dtype=ACC)
        scores = weights * (tl.dot(value, tl.trans(given), input_precision=PRECISION) - mean[None, :])
        to_key = tl.dot(scores.to(query.dtype), query, to_key, input_precision=PRECISION, out_dtype=ACC)
    pointer, step_c, step_p = dense(grad_k, plane, heads, height * width, D, LAST)
    write(pointer, step_c, step_p, position, exists, to_key * SCALE, D, BLOCK_D, LAST)
    pointer, step_c, step_p = dense(grad_v, plane, heads, height * width, D, LAST)
    write(pointer, step_c, step_p, position, exists, to_value, D, BLOCK_D, LAST)

# fmt: on

INTERPRETED = not isinstance(attend, JITFunction)
"""Whether Triton was told to run its kernels in Python."""
