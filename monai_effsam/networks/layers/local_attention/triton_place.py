# Licensed under the Apache License, Version 2.0 (see LICENSE).
# ruff: noqa: ANN001, ANN201, ANN202, PLR0913
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, no-untyped-call, untyped-decorator"
"""Where the positions of a tile and of its surroundings are, and how they are read: shared by the Triton kernels.

A program has one tile of TY x TX positions of one phase of the dilation, in one head of one image. A position is a
number y * width + x; `LAST` says that channels lie next to each other in memory (channels_last), not columns.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "around",
    "beside",
    "dense",
    "head_of",
    "inside",
    "own_bits",
    "read",
    "tile_origin",
    "tile_positions",
    "write",
]

# fmt: off

@triton.jit
def tile_origin(
    height, width, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr
):
    """First row and column of this program's tile, and the number of its image and head.

    Phases of the dilation lie next to each other: programs that run together read the same lines of memory.
    """
    across = tl.cdiv(tl.cdiv(width, DX), TX) * DX
    down = tl.cdiv(tl.cdiv(height, DY), TY) * DY
    number = tl.program_id(0)
    column = number % across
    row = (number // across) % down
    y = row % DY + (row // DY) * (DY * TY)
    x = column % DX + (column // DX) * (DX * TX)
    return y, x, number // (across * down)


@triton.jit
def head_of(base, plane, heads, stride_b, stride_c, D: tl.constexpr):
    """Pointer to the first channel of a head of an image; the count is in 64 bits, those inside a head in 32."""
    image = (plane // heads).to(tl.int64)
    return base + image * stride_b + (plane % heads).to(tl.int64) * D * stride_c


@triton.jit
def dense(base, plane, heads, area, D: tl.constexpr, LAST: tl.constexpr):
    """Pointer to a head of a map without gaps, the step of a channel, the step of a position."""
    image = (plane // heads).to(tl.int64) * (heads * D)
    head = (plane % heads) * D
    if LAST:
        return base + image * area + head, 1, heads * D
    return base + (image + head) * area, area, 1


@triton.jit
def tile_positions(
    y, x, height, width, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr
):
    """Rows and columns of the tile's positions, the positions, and which of them are on the map."""
    n = tl.arange(0, TY * TX)
    rows = y + n // TX * DY
    columns = x + n % TX * DX
    return rows, columns, rows * width + columns, (rows < height) & (columns < width)


@triton.jit
def _on_map(rows, columns, height, width, WRAP: tl.constexpr):
    """Positions, and which of them are on the map; a circular map is entered again at the other side, once."""
    if WRAP:
        rows = tl.where(rows < 0, rows + height, tl.where(rows >= height, rows - height, rows))
        columns = tl.where(columns < 0, columns + width, tl.where(columns >= width, columns - width, columns))
    exists = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return rows * width + columns, exists


@triton.jit
def beside(
    number, rows, columns, height, width,
    KH: tl.constexpr, KW: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr, WRAP: tl.constexpr,
):
    """What the tile's positions meet at one offset of the window: positions, and which of them are on the map."""
    down = (number // KW - KH // 2) * DY
    right = (number % KW - KW // 2) * DX
    return _on_map(rows + down, columns + right, height, width, WRAP)


@triton.jit
def around(
    start, y, x, height, width,
    KH: tl.constexpr, KW: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    N: tl.constexpr, WRAP: tl.constexpr, ZEROS: tl.constexpr,
):
    """N positions of the tile with its halo, from number `start` on.

    Returns:
        positions; which of them are on the map; the rows and columns of the tile whose windows they are outside of,
        as bits (`inside`). What is not on the map is outside all windows, unless `ZEROS` count.
    """
    n = start + tl.arange(0, N)
    i = n // (TX + KW - 1)
    j = n % (TX + KW - 1)
    position, exists = _on_map(y + (i - KH // 2) * DY, x + (j - KW // 2) * DX, height, width, WRAP)
    counts = n < (TY + KH - 1) * (TX + KW - 1)
    exists = exists & counts
    if not ZEROS:
        counts = exists
    # A row of the tile sees the rows i of the halo with row <= i < row + KH.
    rows = (1 << tl.minimum(i + 1, TY)) - (1 << tl.maximum(i + 1 - KH, 0))
    columns = (1 << tl.minimum(j + 1, TX)) - (1 << tl.maximum(j + 1 - KW, 0))
    return position, exists, tl.where(counts, ~(rows | (columns << TY)), -1)


@triton.jit
def own_bits(exists, TY: tl.constexpr, TX: tl.constexpr):
    """Row and column of each position of the tile, as the two bits that `around` speaks of; all where it has none."""
    n = tl.arange(0, TY * TX)
    return tl.where(exists, (1 << (n // TX)) | (1 << (TY + n % TX)), -1)


@triton.jit
def inside(own, outside):
    """(tile, surroundings): whether one is in the window of the other; a single operation a pair."""
    return (own[:, None] & outside[None, :]) == 0


@triton.jit
def read(
    pointer, step_c, step_p, position, exists,
    D: tl.constexpr, BLOCK_D: tl.constexpr, LAST: tl.constexpr,
):
    """(positions, channels), zeros where there is nothing; what is adjacent in memory is the last axis of the load."""
    c = tl.arange(0, BLOCK_D)
    if LAST:
        at = position[:, None] * step_p + c[None, :] * step_c
        return tl.load(pointer + at, mask=exists[:, None] & (c < D)[None, :], other=0.0)
    at = c[:, None] * step_c + position[None, :] * step_p
    return tl.trans(tl.load(pointer + at, mask=(c < D)[:, None] & exists[None, :], other=0.0))


@triton.jit
def write(
    pointer, step_c, step_p, position, exists, values,
    D: tl.constexpr, BLOCK_D: tl.constexpr, LAST: tl.constexpr,
):
    """The opposite of `read`."""
    c = tl.arange(0, BLOCK_D)
    values = values.to(pointer.dtype.element_ty)
    if LAST:
        at = position[:, None] * step_p + c[None, :] * step_c
        tl.store(pointer + at, values, mask=exists[:, None] & (c < D)[None, :])
    else:
        at = c[:, None] * step_c + position[None, :] * step_p
        tl.store(pointer + at, tl.trans(values), mask=(c < D)[:, None] & exists[None, :])
