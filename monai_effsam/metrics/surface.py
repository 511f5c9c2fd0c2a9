# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How far two outlines lie apart: 95th percentile Hausdorff distance and surface Dice; a thin layer over MONAI."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import ShapeError

__all__ = ["SurfaceScore", "surface_score"]


@dataclass(frozen=True, slots=True)
class SurfaceScore:
    """How far two outlines lie apart.

    Args:
        hd95: the larger of the two directed 95th percentiles of the distance from one outline to the other, in the
            unit of the spacing; NaN if both masks are empty, infinite if one is.
        surface_dice: share of the pixels of both outlines that lie within the tolerance of the other outline, 0..1;
            NaN if both masks are empty, 0 if one is.
    """

    hd95: float
    surface_dice: float


def surface_score(
    mask: NDArray[np.bool_],
    label: NDArray[np.bool_],
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = 2.0,
) -> SurfaceScore:
    """What `monai.metrics.compute_hausdorff_distance(percentile=95)` and `compute_surface_dice` give, for one mask.

    Both are made of the same distances, which MONAI's functions would each compute anew. Empty masks count as they do
    there (see `SurfaceScore`). Definitions: Nikolov et al., "Deep learning to achieve clinically applicable
    segmentation of head and neck anatomy for radiotherapy", 2018 (surface Dice, here by counts of outline pixels);
    Maier-Hein et al., "Metrics reloaded", 2024 (HD95 as the larger of two directed percentiles).

    Args:
        mask: bool, a slice (H, W) or a volume (N, H, W).
        label: bool, the same shape.
        spacing: distance of neighbours along each axis; 1 (pixels) by default.
        tolerance: of surface Dice, in the unit of the spacing.

    Raises:
        ShapeError: the shapes differ.
    """
    if mask.shape != label.shape or mask.ndim not in (2, 3):
        raise ShapeError(
            f"surface_score: mask has shape {mask.shape}, expected the label's {label.shape}, 2D or 3D. "
            "Compare on one grid."
        )
    if not (mask.any() and label.any()):
        both_empty = not (mask.any() or label.any())
        return SurfaceScore(math.nan, math.nan) if both_empty else SurfaceScore(math.inf, 0.0)
    there, back = _distances(mask, label, [1.0] * mask.ndim if spacing is None else list(spacing))
    within = np.count_nonzero(there <= tolerance) + np.count_nonzero(back <= tolerance)
    return SurfaceScore(
        hd95=float(max(np.quantile(there, 0.95), np.quantile(back, 0.95))),
        surface_dice=float(within / (len(there) + len(back))),
    )


def _distances(
    mask: NDArray[np.bool_], label: NDArray[np.bool_], spacing: list[float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of each outline pixel of the one to the nearest outline pixel of the other, both ways."""
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    first, second = (torch.from_numpy(np.ascontiguousarray(array)) for array in _cropped(mask, label))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        _, distances, _ = get_edge_surface_distance(first, second, symmetric=True, spacing=spacing)
    there, back = (one.numpy() for one in distances)
    return there, back


def _cropped(
    mask: NDArray[np.bool_], label: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both around what either holds: distances do not change, and large pictures of small things become cheap."""
    either = mask | label
    window = []
    for axis in range(either.ndim):
        rows = np.flatnonzero(either.any(axis=tuple(a for a in range(either.ndim) if a != axis)))
        window.append(slice(int(rows[0]), int(rows[-1]) + 1))
    return mask[tuple(window)], label[tuple(window)]
