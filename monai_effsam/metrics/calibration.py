# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from monai_effsam.errors import ShapeError

__all__ = ["ReliabilityBin", "calibration_error", "reliability"]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """What was said and what was true, in one range of what was said.

    Args:
        low: lower end of the range.
        high: upper end; belongs to the next bin, but for the last one.
        n: how many items.
        said: mean of what was said of them.
        true: mean of what was the case.
    """

    low: float
    high: float
    n: int
    said: float
    true: float

    def to_json(self) -> dict[str, float | int]:
        """A plain dictionary, floats with four decimals."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


def reliability(
    said: Sequence[float], truths: Sequence[float], *, bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """The bins of a reliability diagram that hold anything, from low to high; all are equally wide.

    Args:
        said: what was said of each item, 0..1: a probability, or an estimate of a score.
        truths: what was the case, 0..1: whether it was so (0 or 1), or the score itself.
        bins: number of bins.

    Raises:
        ShapeError: no item, or not one truth for each.
    """
    if len(said) != len(truths) or not len(truths):
        raise ShapeError(
            f"reliability: {len(said)} probabilities and {len(truths)} truths, expected one each."
        )
    p, y = np.asarray(said, float), np.asarray(truths, float)
    place = np.minimum((p * bins).astype(int), bins - 1)
    return tuple(
        ReliabilityBin(
            low=i / bins,
            high=(i + 1) / bins,
            n=int(np.count_nonzero(place == i)),
            said=float(p[place == i].mean()),
            true=float(y[place == i].mean()),
        )
        for i in np.unique(place).tolist()
    )


def calibration_error(said: Sequence[float], truths: Sequence[float], *, bins: int = 10) -> float:
    """Expected calibration error: mean over items of |mean of what was said - mean of the truth| of their bin, 0..1.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3; bins of equal width. The same holds for
    an estimate of a score, with the score itself in place of true or false.

    Args:
        said: 0..1, at least one.
        truths: what was the case, 0..1.
        bins: number of bins.

    Raises:
        ShapeError: no item, or not one truth for each.
    """
    found = reliability(said, truths, bins=bins)
    return sum(b.n * abs(b.said - b.true) for b in found) / len(truths)
