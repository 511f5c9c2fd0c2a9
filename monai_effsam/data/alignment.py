# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A teacher's embedding on its student's grid, whatever sizes, aspects and paddings their inputs have."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_effsam.errors import ShapeError
from monai_effsam.specs import Placement

__all__ = ["align_embedding", "picture_cells"]


def align_embedding(embedding: Tensor, theirs: Placement, ours: Placement, grid: tuple[int, int]) -> Tensor:
    """One image's embedding over the teacher's frame, resampled onto the student's grid.

    Pixel centres are half-pixel, as everywhere. Where both frames show the picture alike this is a plain resize, and
    nothing at all for equal grids; a finer grid is smoothed before it is sampled. Cells that lie in the student's
    padding repeat the teacher's border; see `picture_cells` for which those are.

    Args:
        embedding: (C, h, w).
        theirs: how the picture lies in the teacher's frame.
        ours: how the same picture lies in the student's.
        grid: (h', w') of the student.

    Returns:
        (C, h', w').

    Raises:
        ShapeError: another number of dimensions, or placements of two pictures.
    """
    if embedding.ndim != 3 or theirs.source != ours.source:
        raise ShapeError(
            f"align_embedding: embedding has shape {tuple(embedding.shape)}, of pictures {theirs.source} and "
            f"{ours.source}, expected (C, h, w) and one picture. Give both placements of one view."
        )
    # a step across the student's frame, as a share of it, is so many shares of the teacher's
    down, across = (
        (theirs.content[axis] / theirs.frame[axis]) * (ours.frame[axis] / ours.content[axis])
        for axis in (0, 1)
    )
    x = embedding[None]
    if down == 1 and across == 1:
        return _resized(x, grid)[0]
    # cells of the padding are left out, or the picture's border would be mixed with them
    rows, columns = (int(n.sum()) or 1 for n in _inside(theirs, (x.shape[2], x.shape[3])))
    down, across = down * x.shape[2] / rows, across * x.shape[3] / columns
    size = (min(rows, max(1, round(grid[0] / down))), min(columns, max(1, round(grid[1] / across))))
    x = _resized(x[:, :, :rows, :columns], size)
    theta = torch.tensor([[across, 0, across - 1], [0, down, down - 1]], dtype=x.dtype, device=x.device)
    places = F.affine_grid(theta[None], [1, 1, *grid], align_corners=False)
    return F.grid_sample(x, places, mode="bilinear", padding_mode="border", align_corners=False)[0]


def picture_cells(placement: Placement, grid: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """Which cells of a grid over the frame have their centre in the picture, (1, h, w) float32, 0 or 1.

    Args:
        placement: how the picture lies in the frame.
        grid: (h, w).
        device: of the answer.
    """
    rows, columns = _inside(placement, grid)
    return (rows[:, None] & columns[None, :]).float()[None].to(device)


def _inside(placement: Placement, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Which rows and which columns of a grid have their centre in the picture, (h,) and (w,) bool."""
    rows, columns = (
        (torch.arange(cells) + 0.5) * placement.frame[axis] / cells < placement.content[axis]
        for axis, cells in enumerate(grid)
    )
    return rows, columns


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, C, h, w) at another size; averaged where it shrinks."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
