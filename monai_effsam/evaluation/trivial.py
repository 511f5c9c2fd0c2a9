# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Answers that need no model and no look at the picture: what every score has to be read against.

Without a prompt: a constant mask, the mean of the training masks. With a box: the ellipse that it frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from monai_effsam.data.io import read_image, read_label
from monai_effsam.data.sets import Case

__all__ = ["ConstantMask", "constant_masks", "ellipse_in"]

_SIDE = 64
_DEPTH = 16
_LEVELS = np.arange(1, 50) / 50


@dataclass(frozen=True, eq=False)
class ConstantMask:
    """The same answer for every file of a set.

    Args:
        mean: (D, 64, 64) share of the training masks that hold the target at a place, each stretched to this grid; D
            is 1 for pictures and 16 for stacks of slices.
        level: where the mean is at least this, the answer is "target": the level with the best mean Dice over the
            masks that `mean` was made of.
        files: how many these are.
    """

    mean: NDArray[np.float32]
    level: float
    files: int

    def like(self, shape: Sequence[int]) -> NDArray[np.bool_]:
        """The answer on a grid of (N, H, W)."""
        return _stretched(self.mean, shape, "trilinear") >= self.level


def constant_masks(cases: Iterable[Case]) -> dict[str, ConstantMask]:
    """The constant mask of each target of one set, from those of its files that hold the target.

    Args:
        cases: of one set, those that a model may learn from.

    Returns:
        Target -> mask; targets that no file holds are missing, and so are all if the files are neither all pictures
        nor all stacks.

    Raises:
        DataError: an image or a label cannot be read.
    """
    grids: dict[str, list[NDArray[np.float32]]] = {}
    for case in cases:
        label = read_label(case.mask, read_image(case.image, modality=case.modality))
        depth = 1 if len(label) == 1 else _DEPTH
        for value, target in case.values.items():
            drawn = label == value
            if drawn.any():
                grids.setdefault(target, []).append(_stretched(drawn, (depth, _SIDE, _SIDE), "area"))
    return {
        target: _best(np.stack(own))
        for target, own in grids.items()
        if len({grid.shape for grid in own}) == 1
    }


def ellipse_in(box: Sequence[float], size: Sequence[int]) -> NDArray[np.bool_]:
    """The filled ellipse that a box frames, sides touching, where it lies inside the picture.

    Args:
        box: (x0, y0, x1, y1) in pixels.
        size: (H, W) of the picture.
    """
    x0, y0, x1, y1 = box
    x = (np.arange(size[1]) + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
    y = (np.arange(size[0]) + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
    return np.asarray(x[None] ** 2 + y[:, None] ** 2 <= 1)


def _best(grids: NDArray[np.float32]) -> ConstantMask:
    """Mean of (n, D, H, W) shares and the level at which it does best on them."""
    mean = grids.mean(0)
    flat = grids.reshape(len(grids), -1)
    answers = (mean.reshape(-1)[:, None] >= _LEVELS).astype(np.float32)  # (pixels, levels)
    dice = 2 * flat @ answers / (flat.sum(1)[:, None] + answers.sum(0))
    return ConstantMask(mean, float(_LEVELS[dice.mean(0).argmax()]), len(grids))


def _stretched(
    array: NDArray[np.bool_] | NDArray[np.float32], shape: Sequence[int], mode: str
) -> NDArray[np.float32]:
    """(N, H, W) on another grid, ends on ends."""
    volume = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None, None]
    corners = None if mode == "area" else False
    return interpolate(volume, tuple(shape), mode=mode, align_corners=corners)[0, 0].numpy()
