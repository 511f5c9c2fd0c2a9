# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a list of scores says: spread, bootstrap interval of the mean, paired comparison."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import ShapeError

__all__ = [
    "PairedDifference",
    "Spread",
    "bootstrap_interval",
    "holm",
    "paired_difference",
    "paired_p_value",
    "spread_of",
    "student_interval",
]


@dataclass(frozen=True, slots=True)
class Spread:
    """What a list of scores says.

    Args:
        n: how many scores.
        groups: how many patients or sequences they come from.
        mean: of the scores.
        sd: standard deviation of the scores, n - 1 in the denominator; 0 for one score.
        low: lower end of the 95 % bootstrap interval of the mean.
        high: upper end.
        median: of the scores.
        tenth: the 10th percentile.
        below_half: share of the scores that are below 0.5.
    """

    n: int
    groups: int
    mean: float
    sd: float
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
        sd=float(x.std(ddof=1)) if len(x) > 1 else 0.0,
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


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """What a paired comparison says of the first scores minus the second ones.

    Args:
        n: how many pairs.
        groups: how many patients or sequences they come from.
        first: mean of the first scores.
        second: mean of the second scores.
        mean: of the differences.
        low: lower end of the 95 % bootstrap interval of the mean, groups drawn whole.
        high: upper end.
        better: groups in which the first are higher on average.
        worse: groups in which the second are.
        effect: matched-pairs rank-biserial correlation over groups, -1..1: (sum of the ranks of groups in which the
            first are higher - sum of the others) / sum of all; 0 if all are equal (Kerby, "The simple difference
            formula", 2014).
        p_value: two-sided Wilcoxon signed-rank test over the groups' mean differences.
    """

    n: int
    groups: int
    first: float
    second: float
    mean: float
    low: float
    high: float
    better: int
    worse: int
    effect: float
    p_value: float

    def to_json(self) -> dict[str, float | int]:
        """A plain dictionary, floats with four decimals, the p-value with four digits."""
        values = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return values | {"p_value": float(f"{self.p_value:.4g}")}


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
) -> PairedDifference:
    """Compare two lists of scores of the same items.

    The test and its effect count patients, not slices: slices of one patient are alike, and counted one by one they
    would make chance look significant.

    Args:
        first: one score an item.
        second: the other score of the same items.
        groups: patient or sequence of each item; each item its own by default.
        seed: of the bootstrap.

    Raises:
        ShapeError: the lists differ in length or are empty.
    """
    if len(first) != len(second) or not len(first):
        raise ShapeError(
            f"paired_difference: {len(first)} and {len(second)} values, expected as many of both, at least one pair."
        )
    a, b = np.asarray(first, float), np.asarray(second, float)
    keys = list(range(len(a))) if groups is None else list(groups)
    low, high = bootstrap_interval((a - b).tolist(), keys, seed=seed)
    place = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    rows = np.array([place[key] for key in keys])
    means = np.bincount(rows, weights=a - b) / np.bincount(rows)
    means[np.abs(means) < 1e-12] = 0.0  # sums of equal numbers in another order
    return PairedDifference(
        n=len(a),
        groups=len(place),
        first=float(a.mean()),
        second=float(b.mean()),
        mean=float((a - b).mean()),
        low=low,
        high=high,
        better=int(np.count_nonzero(means > 0)),
        worse=int(np.count_nonzero(means < 0)),
        effect=_rank_biserial(means),
        p_value=paired_p_value(means.tolist(), [0.0] * len(means)),
    )


def _rank_biserial(differences: NDArray[np.float64]) -> float:
    """Ranks of the sizes of what differs, those of equal size averaged, weighed by their signs."""
    d = differences[differences != 0]
    if not len(d):
        return 0.0
    _, place, counts = np.unique(np.abs(d), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks * np.sign(d)).sum() / ranks.sum())


def paired_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided Wilcoxon signed-rank test of paired scores; 1 if all pairs are equal.

    Raises:
        ShapeError: the lists differ in length or are empty.
    """
    if len(first) != len(second) or not len(first):
        raise ShapeError(
            f"paired_p_value: {len(first)} and {len(second)} values, expected as many of both, at least one pair."
        )
    from scipy.stats import wilcoxon  # here, as it takes most of a second to load

    if np.array_equal(first, second):
        return 1.0
    return float(wilcoxon(first, second).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given: Holm's step-down method.

    The k-th smallest of n becomes the largest of p_(j) (n - j + 1) over j <= k, and at most 1 (Holm, "A simple
    sequentially rejective multiple test procedure", 1979).
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in corrected]


def student_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean of a few values, such as one a seed, and half of its interval after Student.

    Args:
        values: at least one; of one the half is not known, NaN.
        level: coverage, 0..1.

    Raises:
        ShapeError: no value.
    """
    if not len(values):
        raise ShapeError("student_interval: no value, expected at least one. Measure first.")
    from scipy.stats import t  # here, as it takes most of a second to load

    x = np.asarray(values, float)
    if len(x) < 2:
        return float(x.mean()), float("nan")
    return float(x.mean()), float(t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
