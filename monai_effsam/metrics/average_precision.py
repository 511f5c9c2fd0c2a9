# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""COCO's average precision of masks: over a whole data set, of objects found in pictures of any size; numpy only.

The definition is that of pycocotools' `COCOeval` ("Microsoft COCO", Lin et al., arXiv 1405.0312) with all areas and
no crowds: overlaps of .50:.05:.95, precision read at 101 recalls, each mask matched in the order of the scores to the
free object that it overlaps most. pycocotools itself is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_effsam.errors import ShapeError

__all__ = ["COCO_OVERLAPS", "FoundObjects", "MaskPrecision", "average_precision", "match_masks"]

COCO_OVERLAPS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""IoU from which on a mask counts as its object."""

_RECALLS = np.linspace(0.0, 1.0, 101)
_NEARLY_ONE = 1 - 1e-10  # COCO's: an overlap of 1 is always enough
_TINY = np.spacing(1.0)


class FoundObjects(NamedTuple):
    """What was found of one class in one picture.

    Attributes:
        scores: (D,), of the masks; only their order counts.
        overlaps: (D, G), IoU of each mask with each object that is really there.
        name: of the class.
    """

    scores: NDArray[np.float64]
    overlaps: NDArray[np.float64]
    name: str = ""


class MaskPrecision(NamedTuple):
    """Average precision of a data set, 0..1 each, a mean over the classes that occur; NaN if none does.

    Attributes:
        mean: mAP, COCO's AP: the mean over IoU .50:.05:.95.
        at_50: AP50.
        at_75: AP75.
        classes: `mean` of each class.
    """

    mean: float
    at_50: float
    at_75: float
    classes: Mapping[str, float]


def match_masks(
    masks: Sequence[NDArray[np.bool_]],
    scores: ArrayLike,
    labels: Sequence[NDArray[np.bool_]],
    name: str = "",
) -> FoundObjects:
    """Overlaps of the masks of a picture with the objects of one class in it.

    Args:
        masks: D of them, bool, on one grid of any shape.
        scores: (D,).
        labels: G of them, one an object, on the same grid.
        name: of the class.

    Raises:
        ShapeError: shapes differ, or there are not as many scores as masks.
    """
    values = np.asarray(scores, np.float64).reshape(-1)
    shapes = {mask.shape for mask in (*masks, *labels)}
    if len(shapes) > 1 or len(values) != len(masks):
        raise ShapeError(
            f"match_masks: {len(masks)} masks and {len(labels)} labels have shapes {sorted(shapes)} and there are "
            f"{len(values)} scores, expected one shape and a score a mask. Compare on one grid."
        )
    found, real = (np.array([one.ravel() for one in rows], bool) for rows in (masks, labels))
    overlaps = np.zeros((len(masks), len(labels)))
    for row, mask in enumerate(found):
        for column, label in enumerate(real):
            both = np.count_nonzero(mask & label)
            overlaps[row, column] = both / np.count_nonzero(mask | label) if both else 0.0
    return FoundObjects(values, overlaps, name)


def average_precision(pictures: Sequence[FoundObjects], *, most: int = 100) -> MaskPrecision:
    """COCO's mask AP of a data set.

    A picture without an object of a class belongs in the list too where something was found in it. Of equal scores
    the earlier picture comes first, as in COCO.

    Args:
        pictures: an entry for each picture and class.
        most: masks a picture and class that count, those of the highest scores.

    Raises:
        ShapeError: overlaps that are not (D, G) with D scores.
    """
    for one in pictures:
        if one.overlaps.ndim != 2 or one.scores.shape != one.overlaps.shape[:1]:
            raise ShapeError(
                f"average_precision: overlaps have shape {one.overlaps.shape} and scores {one.scores.shape}, expected "
                "(D, G) and (D,). Make them with match_masks."
            )
    table = {}
    for name in dict.fromkeys(one.name for one in pictures):
        own = [_best(one, most) for one in pictures if one.name == name]
        if count := sum(one.overlaps.shape[1] for one in own):
            table[name] = np.array([_at(own, overlap, count) for overlap in COCO_OVERLAPS])
    if not table:
        return MaskPrecision(np.nan, np.nan, np.nan, {})
    means = np.mean(list(table.values()), axis=0)
    return MaskPrecision(
        float(means.mean()),
        float(means[0]),
        float(means[5]),
        {name: float(values.mean()) for name, values in table.items()},
    )


def _best(one: FoundObjects, most: int) -> FoundObjects:
    """The masks of a picture, those of the highest score first."""
    order = np.argsort(-one.scores, kind="stable")[:most]
    return FoundObjects(one.scores[order], one.overlaps[order], one.name)


def _at(pictures: Sequence[FoundObjects], least: float, count: int) -> float:
    """Average precision at one overlap, of `count` objects in all."""
    scores = np.concatenate([one.scores for one in pictures])
    hits = np.concatenate([_hits(one.overlaps, least) for one in pictures])
    hits = hits[np.argsort(-scores, kind="stable")]
    right, wrong = np.cumsum(hits), np.cumsum(~hits)
    recall, precision = right / count, right / (right + wrong + _TINY)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.append(envelope, 0.0)[places].mean())


def _hits(overlaps: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Which masks, in the order of their scores, find an object that none before them has."""
    hits = np.zeros(len(overlaps), bool)
    free = np.ones(overlaps.shape[1], bool)
    for row, values in enumerate(overlaps):
        fitting = np.flatnonzero(free & (values >= min(least, _NEARLY_ONE)))
        if len(fitting):
            best = fitting[values[fitting] == values[fitting].max()][-1]  # of equals the last, as COCO does
            hits[row], free[best] = True, False
    return hits
