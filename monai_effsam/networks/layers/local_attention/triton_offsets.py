# Licensed under the Apache License, Version 2.0 (see LICENSE).
# ruff: noqa: ANN001, ANN201, PLR0913
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, no-untyped-call, untyped-decorator"
"""Triton kernels of local attention one window offset after the other: for heads of few channels, and exact sums.

A thread has a position and its channels in registers and walks over the window; neighbours find in the cache what
they share. Otherwise as `triton_tiles.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from monai_effsam.networks.layers.local_attention.triton_place import (
    beside,
    dense,
    head_of,
    read,
    tile_origin,
    tile_positions,
    write,
)

__all__ = ["attend", "to_keys_and_values", "to_queries"]

# fmt: off

@triton.jit
def attend(
    q, k, v, out, sums, height, width, heads,
    q_b, q_c, q_p, k_b, k_c, k_p, v_b, v_c, v_p,
    SCALE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    WRAP: tl.constexpr, ZEROS: tl.constexpr, LAST: tl.constexpr,
):
    """The attention, and the base-2 logarithms of the softmax's denominators."""
    ACC: tl.constexpr = sums.dtype.element_ty
    y, x, plane = tile_origin(height, width, DY, DX, TY, TX)
    rows, columns, position, exists = tile_positions(y, x, height, width, DY, DX, TY, TX)
    query = read(head_of(q, plane, heads, q_b, q_c, D), q_c, q_p, position, exists, D, BLOCK_D, LAST)
    query = query.to(ACC) * (SCALE * 1.4426950408889634)
    keys, values = head_of(k, plane, heads, k_b, k_c, D), head_of(v, plane, heads, v_b, v_c, D)
    top = tl.full([TY * TX], -1e30, ACC)  # not -inf: the first offsets may lie beyond the map
    total = tl.zeros([TY * TX], ACC)
    weighted = tl.zeros([TY * TX, BLOCK_D], ACC)
    for number in range(0, KH * KW):
        at, there = beside(number, rows, columns, height, width, KH, KW, DY, DX, WRAP)
        logits = tl.sum(query * read(keys, k_c, k_p, at, there, D, BLOCK_D, LAST).to(ACC), 1)
        if not ZEROS:
            logits = tl.where(there, logits, float("-inf"))
        higher = tl.maximum(top, logits)
        shrink = tl.exp2(top - higher)
        weights = tl.exp2(logits - higher)
        total = total * shrink + weights
        value = read(values, v_c, v_p, at, there, D, BLOCK_D, LAST).to(ACC)
        weighted = weighted * shrink[:, None] + weights[:, None] * value
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
    WRAP: tl.constexpr, ZEROS: tl.constexpr, LAST: tl.constexpr,
):
    """Gradient of the queries, and each query's sum of `grad * out`, which the keys need as well."""
    ACC: tl.constexpr = sums.dtype.element_ty
    y, x, plane = tile_origin(height, width, DY, DX, TY, TX)
    rows, columns, position, exists = tile_positions(y, x, height, width, DY, DX, TY, TX)
    query = read(head_of(q, plane, heads, q_b, q_c, D), q_c, q_p, position, exists, D, BLOCK_D, LAST)
    query = query.to(ACC) * (SCALE * 1.4426950408889634)
    given = read(head_of(grad, plane, heads, g_b, g_c, D), g_c, g_p, position, exists, D, BLOCK_D, LAST).to(ACC)
    keys, values = head_of(k, plane, heads, k_b, k_c, D), head_of(v, plane, heads, v_b, v_c, D)
    pointer, step_c, step_p = dense(out, plane, heads, height * width, D, LAST)
    mean = tl.sum(given * read(pointer, step_c, step_p, position, exists, D, BLOCK_D, LAST).to(ACC), 1)
    area = plane.to(tl.int64) * height * width
    total = tl.load(sums + area + position, mask=exists, other=0.0)
    tl.store(means + area + position, mean, mask=exists)
    gathered = tl.zeros([TY * TX, BLOCK_D], ACC)
    for number in range(0, KH * KW):
        at, there = beside(number, rows, columns, height, width, KH, KW, DY, DX, WRAP)
        key = read(keys, k_c, k_p, at, there, D, BLOCK_D, LAST).to(ACC)
        value = read(values, v_c, v_p, at, there, D, BLOCK_D, LAST).to(ACC)
        logits = tl.sum(query * key, 1) - total
        if not ZEROS:
            logits = tl.where(there, logits, float("-inf"))
        weights = tl.exp2(logits)
        gathered += (weights * (tl.sum(given * value, 1) - mean))[:, None] * key
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
    WRAP: tl.constexpr, LAST: tl.constexpr,
):
    """Gradients of keys and values; the tile's are keys, and a window of odd size looks the same from them."""
    ACC: tl.constexpr = sums.dtype.element_ty
    y, x, plane = tile_origin(height, width, DY, DX, TY, TX)
    rows, columns, position, exists = tile_positions(y, x, height, width, DY, DX, TY, TX)
    key = read(head_of(k, plane, heads, k_b, k_c, D), k_c, k_p, position, exists, D, BLOCK_D, LAST)
    key = key.to(ACC) * (SCALE * 1.4426950408889634)
    value = read(head_of(v, plane, heads, v_b, v_c, D), v_c, v_p, position, exists, D, BLOCK_D, LAST).to(ACC)
    queries, grads = head_of(q, plane, heads, q_b, q_c, D), head_of(grad, plane, heads, g_b, g_c, D)
    area = plane.to(tl.int64) * height * width
    to_key = tl.zeros([TY * TX, BLOCK_D], ACC)
    to_value = tl.zeros([TY * TX, BLOCK_D], ACC)
    for number in range(0, KH * KW):
        at, there = beside(number, rows, columns, height, width, KH, KW, DY, DX, WRAP)
        query = read(queries, q_c, q_p, at, there, D, BLOCK_D, LAST).to(ACC)
        given = read(grads, g_c, g_p, at, there, D, BLOCK_D, LAST).to(ACC)
        total = tl.load(sums + area + at, mask=there, other=0.0)
        mean = tl.load(means + area + at, mask=there, other=0.0)
        logits = tl.where(there & exists, tl.sum(query * key, 1) - total, float("-inf"))
        weights = tl.exp2(logits)
        to_value += weights[:, None] * given
        to_key += (weights * (tl.sum(given * value, 1) - mean))[:, None] * query
    pointer, step_c, step_p = dense(grad_k, plane, heads, height * width, D, LAST)
    write(pointer, step_c, step_p, position, exists, to_key * SCALE, D, BLOCK_D, LAST)
    pointer, step_c, step_p = dense(grad_v, plane, heads, height * width, D, LAST)
    write(pointer, step_c, step_p, position, exists, to_value, D, BLOCK_D, LAST)
