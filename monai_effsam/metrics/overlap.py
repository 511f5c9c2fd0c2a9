# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Overlap of one mask with one label, on the grid they share; numpy only.

MONAI's `DiceMetric` gives the same numbers on batches of one-hot tensors; single files of all sizes need neither.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import ShapeError

__all__ = ["dice_score", "iou_score", "precision_score", "recall_score"]


def dice_score(mask: NDArray[np.bool_], label: NDArray[np.bool_]) -> float:
    """2 |mask and label| / (|mask| + |label|), 0..1; 1 if both are empty.

    Args:
        mask: bool, any shape: a slice (H, W) or a whole volume (N, H, W).
        label: bool, the same shape.

    Raises:
        ShapeError: the shapes differ.
    """
    both, either = _counts(mask, label)
    return 2 * both / (both + either) if either else 1.0


def iou_score(mask: NDArray[np.bool_], label: NDArray[np.bool_]) -> float:
    """|mask and label| / |mask or label|, 0..1; 1 if both are empty. See `dice_score`."""
    both, either = _counts(mask, label)
    return both / either if either else 1.0


def precision_score(mask: NDArray[np.bool_], label: NDArray[np.bool_]) -> float:
    """|mask and label| / |mask|, 0..1; NaN if the mask is empty, as in MONAI: nothing was claimed."""
    both, _ = _counts(mask, label)
    size = int(np.count_nonzero(mask))
    return both / size if size else math.nan


def recall_score(mask: NDArray[np.bool_], label: NDArray[np.bool_]) -> float:
    """|mask and label| / |label|, 0..1; NaN if the label is empty, as in MONAI: nothing could be missed."""
    both, _ = _counts(mask, label)
    size = int(np.count_nonzero(label))
    return both / size if size else math.nan


def _counts(mask: NDArray[np.bool_], label: NDArray[np.bool_]) -> tuple[int, int]:
    """Sizes of intersection and union."""
    if mask.shape != label.shape:
        raise ShapeError(
            f"overlap: mask has shape {mask.shape}, expected the label's {label.shape}. Compare on one grid."
        )
    return int(np.count_nonzero(mask & label)), int(np.count_nonzero(mask | label))
