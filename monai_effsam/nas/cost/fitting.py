# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""From pieces to networks: the line through some random networks, and how well it tells others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from monai_effsam.errors import UsageError
from monai_effsam.nas.cost.table import GROUPS, LatencyFit, LatencyTable
from monai_effsam.networks.encoders.architecture import Architecture

__all__ = ["check_table", "fit_table", "prediction_quality"]


def fit_table(table: LatencyTable, architectures: Sequence[Architecture], measured: Sequence[float]) -> None:
    """Set a table's fit: overhead and factors, none negative, of least relative squares over measured encoders.

    The sum of pieces is biased: runtimes merge neighbours, and maps stay in the cache between them.

    Args:
        table: with entries for all their pieces; changed in place.
        architectures: of random networks.
        measured: times of their encoders [ms].

    Raises:
        UsageError: too few networks, or a piece that was not measured.
    """
    from scipy.optimize import nnls

    if len(architectures) < 2 * (1 + len(GROUPS)):
        raise UsageError(
            f"fit_table: {len(architectures)} networks, expected at least {2 * (1 + len(GROUPS))}. Measure more."
        )
    times = np.asarray(measured, np.float64)
    sums = [table.grouped(one) for one in architectures]
    columns = np.array([[1.0, *(one[group] for group in GROUPS)] for one in sums])
    used = columns.any(0)
    found = np.zeros(columns.shape[1])
    found[used], _ = nnls(columns[:, used] / times[:, None], np.ones(len(times)))
    overhead, *factors = (float(value) for value in found)
    # a group that no network had keeps its plain sum
    factors = [value if there else 1.0 for value, there in zip(factors, used[1:], strict=True)]
    table.fit = LatencyFit(overhead, dict(zip(GROUPS, factors, strict=True)), nets=len(architectures))


def check_table(
    table: LatencyTable, architectures: Sequence[Architecture], measured: Sequence[float]
) -> dict[str, float]:
    """How well a table predicts measured encoders; the answer is kept in its fit.

    Args:
        table: changed in place.
        architectures: that the fit has not seen.
        measured: times of their encoders [ms].
    """
    predicted = [table.predict(one).encoder for one in architectures]
    found = prediction_quality(predicted, measured)
    table.fit = replace(table.fit, check=found)
    return dict(found)


def prediction_quality(predicted: Sequence[float], measured: Sequence[float]) -> Mapping[str, Any]:
    """Kendall's tau of two lists of times, and median and 90th percentile of the relative error."""
    from scipy.stats import kendalltau

    errors = [abs(p - m) / m for p, m in zip(predicted, measured, strict=True)]
    tau = float(kendalltau(predicted, measured).statistic)
    return {
        "nets": len(errors),
        "kendall_tau": round(tau, 4),
        "median_error": round(median(errors), 4),
        "p90_error": round(float(np.quantile(errors, 0.9)), 4),
        "fastest_ms": round(min(measured), 4),
        "slowest_ms": round(max(measured), 4),
    }
