# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How right a classifier is: accuracy, the mean of the classes' recalls, and the mean of their areas under the ROC."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monai_effsam.errors import ShapeError

__all__ = ["ClassScores", "class_scores"]


class ClassScores(NamedTuple):
    """What a list of answers is worth, each 0..1.

    Attributes:
        accuracy: share of right answers.
        balanced: mean over the classes of the share of their items that is answered right.
        auc: mean over the classes of the area under the ROC curve of that class against all others.
    """

    accuracy: float
    balanced: float
    auc: float


def class_scores(scores: npt.NDArray[np.floating[Any]], target: npt.NDArray[np.integer[Any]]) -> ClassScores:
    """Scores of a classifier; classes without an item are left out of the means.

    Args:
        scores: (N, K), the higher the likelier; for the area they must be comparable between items, so probabilities.
        target: (N,) class numbers.

    Raises:
        ShapeError: not one row a target, or fewer than two classes among the targets.
    """
    present = np.unique(target)
    if scores.ndim != 2 or len(scores) != len(target) or len(present) < 2:
        raise ShapeError(
            f"class_scores: scores {scores.shape} and {len(target)} targets of {len(present)} classes, expected (N, K)"
            " and N of at least two. Give one row an item."
        )
    right = scores.argmax(1) == target
    areas = [_area(scores[:, k], target == k) for k in present]
    recalls = [right[target == k].mean() for k in present]
    return ClassScores(float(right.mean()), float(np.mean(recalls)), float(np.mean(areas)))


def _area(scores: npt.NDArray[np.floating[Any]], positive: npt.NDArray[np.bool_]) -> float:
    """Share of (positive, other) pairs in which the positive one is higher, ties by half: Mann and Whitney, 1947."""
    from scipy.stats import rankdata  # here, as it takes most of a second to load

    ranks, count = rankdata(scores), int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))
