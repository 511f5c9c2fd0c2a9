# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a list of scores says: spread, bootstrap interval of the mean, paired comparison."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from monai_effsam.errors import MissingExtraError, ShapeError

__all__ = ["Spread", "bootstrap_interval", "paired_p_value", "spread_of"]


@dataclass(frozen=True, slots=True)
class Spread:
    """What a list of scores says.

    Args:
        n: how many scores.
        groups: how many patients or sequences they come from.
        mean: of the scores.
        low: lower end of the 95 % bootstrap interval of the mean.
        high: upper end.
        median: of the scores.
        tenth: the 10th percentile.
        below_half: share of the scores that are below 0.5.
    """

    n: int
    groups: int
    mean: float
    low: float
    high: float
    median: float
    tenth: float
    below_half: float

    def to_json(self) -> dict[str, float | int]:
        """A plain dictionary, floats with four decimals."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


def spread_of(
    values: Sequence[float], groups: Sequence[Hashable] | None = None, *, seed: int = 0
) -> Spread | None:
    """Summary of scores; None if there are none.

    Args:
        values: one score an item.
        groups: patient or sequence of each item; each item its own by default.
        seed: of the bootstrap.

    Raises:
        ShapeError: not one group a value.
    """
    if not len(values):
        return None
    x = np.asarray(values, float)
    low, high = bootstrap_interval(values, groups, seed=seed)
    return Spread(
        n=len(x),
        groups=len(set(groups)) if groups is not None else len(x),
        mean=float(x.mean()),
        low=low,
        high=high,
        median=float(np.median(x)),
        tenth=float(np.quantile(x, 0.1)),
        below_half=float((x < 0.5).mean()),
    )


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean; groups are drawn whole, as slices of one patient are alike.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, sections 8 and 13. With one group both ends are
    the mean: nothing is known about other groups.

    Args:
        values: one score an item, at least one.
        groups: patient or sequence of each item; each item its own by default.
        level: coverage, 0..1.
        repeats: resamples.
        seed: of the draws.

    Raises:
        ShapeError: no value, or not one group a value.
    """
    keys = list(range(len(values))) if groups is None else list(groups)
    if not keys or len(keys) != len(values):
        raise ShapeError(
            f"bootstrap_interval: {len(values)} values and {len(keys)} groups, expected one group a value."
        )
    place = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    rows = np.array([place[key] for key in keys])
    sums = np.bincount(rows, weights=np.asarray(values, float))
    counts = np.bincount(rows)
    drawn = np.random.default_rng(seed).integers(0, len(place), size=(repeats, len(place)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided Wilcoxon signed-rank test of paired scores; 1 if all pairs are equal.

    Raises:
        ShapeError: the lists differ in length or are empty.
        MissingExtraError: scipy is not installed.
    """
    if len(first) != len(second) or not len(first):
        raise ShapeError(
            f"paired_p_value: {len(first)} and {len(second)} values, expected as many of both, at least one pair."
        )
    try:
        from scipy.stats import wilcoxon  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingExtraError("scipy") from error
    if np.array_equal(first, second):
        return 1.0
    return float(wilcoxon(first, second).pvalue)
