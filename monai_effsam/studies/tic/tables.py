# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Tables of a comparison: scores, differences of the same seed, what is lost at other sizes, growth with the area."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from monai_effsam.metrics.statistics import student_interval
from monai_effsam.reports.table_form import markdown_table
from monai_effsam.studies.tic.growth import GROWING, GrowthRow, exponents
from monai_effsam.studies.tic.nets import (
    ABLATION,
    CONVOLUTION,
    EXTRA_NETS,
    FINE_TIC,
    STUDY_NETS,
    TASK_NETS,
    TIC,
    VIT,
)
from monai_effsam.studies.tic.runs import StudyRow

__all__ = [
    "difference_table",
    "growth_table",
    "losses",
    "score_table_of",
    "transfer_table",
    "values",
    "verdict_table",
    "whole_seeds",
]

PAIRS = (
    (ABLATION[1], ABLATION[0]),
    (TIC, ABLATION[1]),
    (TIC, ABLATION[0]),
    (TIC, CONVOLUTION),
    (TIC, VIT),
    (FINE_TIC, TIC),
)
"""Whose differences are told: first minus second."""

MEASURES = (("accuracy", "accuracy"), ("balanced", "balanced accuracy"), ("auc", "macro AUC"))


def whole_seeds(rows: Sequence[StudyRow], task: str, *, extra: bool = False) -> list[StudyRow]:
    """Rows of a task of the seeds that every network was trained with.

    Args:
        rows: of the comparison.
        task: its name.
        extra: with the networks of `EXTRA_NETS`, of the seeds that have these too; none where the task has none.
    """
    if extra and task not in EXTRA_NETS:
        return []
    nets = (*TASK_NETS[task], *(EXTRA_NETS[task] if extra else ()))
    own = [row for row in rows if row.task == task and row.net in nets]
    whole = {row.seed for row in own}
    for net in nets:
        whole &= {row.seed for row in own if row.net == net}
    return [row for row in own if row.seed in whole]


def values(rows: Sequence[StudyRow], net: str, side: int, measure: str = "accuracy") -> list[float]:
    """A measure of a network at a size, in the order of the seeds."""
    own = sorted((row for row in rows if (row.net, row.side) == (net, side)), key=lambda row: row.seed)
    return [getattr(row, measure) for row in own]


def losses(
    rows: Sequence[StudyRow], net: str, side: int, trained: int, measure: str = "accuracy"
) -> list[float]:
    """What a network loses at a size against that of its training, in the order of the seeds; below 0 it gains."""
    here, there = (values(rows, net, s, measure) for s in (side, trained))
    return [before - after for after, before in zip(here, there, strict=True)]


def score_table_of(rows: Sequence[StudyRow], trained: int) -> str:
    """Each network at the size of its training, mean and standard deviation over the seeds.

    Args:
        rows: of whole seeds of one task.
        trained: that size [px].
    """
    cells = []
    for net in _nets(rows):
        one = next(row for row in rows if row.net == net)
        scores = [_spread(values(rows, net, trained, measure)) for measure, _ in MEASURES]
        fitted = _spread(values(rows, net, trained, "fitted"))
        seconds = fmean(values(rows, net, trained, "seconds"))
        cells.append((net, f"{one.parameters:,}", *scores, fitted, f"{seconds:.0f}"))
    titles = ("", "parameters", *(title for _, title in MEASURES), "accuracy in training", "training [s]")
    return markdown_table(titles, cells)


def difference_table(rows: Sequence[StudyRow], trained: int) -> str:
    """Differences of the same seed, with Student's 95 % interval of their mean.

    Args:
        rows: of whole seeds of one task.
        trained: size [px].
    """
    cells = [
        (
            f"{first} − {second}",
            *(
                _interval(_minus(values(rows, first, trained, m), values(rows, second, trained, m)))
                for m, _ in MEASURES
            ),
        )
        for first, second in PAIRS
        if {first, second} <= set(_nets(rows))
    ]
    return markdown_table(("first − second", *(title for _, title in MEASURES)), cells)


def transfer_table(
    rows: Sequence[StudyRow], sides: Sequence[int], trained: int, measure: str = "accuracy"
) -> str:
    """A measure of each network at each size, and below it what is lost against the size of the training.

    Args:
        rows: of whole seeds of one task.
        sides: of the test images [px].
        trained: size of the training [px].
        measure: field of a row.
    """
    cells = [(net, *(_spread(values(rows, net, side, measure)) for side in sides)) for net in _nets(rows)]
    for net in _nets(rows):
        lost = (
            f"{100 * fmean(losses(rows, net, s, trained, measure)):+.1f}" if s != trained else ""
            for s in sides
        )
        cells.append((f"{net}: loss, points", *lost))
    return markdown_table(("tested at [px]", *map(str, sides)), cells)


def verdict_table(
    rows: Sequence[StudyRow], sides: Sequence[int], trained: int, measure: str = "accuracy"
) -> str:
    """Whether TiC loses less than the others at every other size: loss of the other minus TiC's, of the same seed.

    Args:
        rows: of whole seeds of one task.
        sides: of the test images [px].
        trained: size of the training [px].
        measure: field of a row.
    """
    cells = []
    pairs = ((TIC, VIT), (TIC, CONVOLUTION), (FINE_TIC, VIT))
    for own, other in (pair for pair in pairs if set(pair) <= set(_nets(rows))):
        told, held = [], 0
        for side in sides:
            if side == trained:
                continue
            gain = _minus(
                losses(rows, other, side, trained, measure), losses(rows, own, side, trained, measure)
            )
            held += fmean(gain) > 0
            told.append(_interval([100 * value for value in gain], 1))
        cells.append((f"{other} loses more than {own} by", *told, f"{held} of {len(told)}"))
    others = [f"{side} px" for side in sides if side != trained]
    return markdown_table(("points", *others, "loses more at"), cells)


def growth_table(rows: Sequence[GrowthRow]) -> str:
    """Time and memory by size, and the exponents over the area."""
    sides = sorted({row.side for row in rows})
    parts: tuple[tuple[str, str, Callable[[GrowthRow], float | None]], ...] = (
        ("ms", "milliseconds", lambda row: row.milliseconds),
        ("MiB", "mebibytes", lambda row: row.mebibytes),
    )
    cells = []
    for unit, field, of in parts:
        slopes = exponents(rows, field)
        last = exponents([row for row in rows if row.side in sides[-2:]], field)
        for net in GROWING:
            found = {row.side: of(row) for row in rows if row.net == net}
            told = (_figure(found.get(side)) for side in sides)
            fitted = (f"{of_all[net]:.2f}" if net in of_all else "–" for of_all in (slopes, last))
            cells.append((f"{net} [{unit}]", *told, *fitted))
    return markdown_table(
        ("image side [px]", *map(str, sides), "exponent over area", "of the last step"), cells
    )


def _nets(rows: Sequence[StudyRow]) -> list[str]:
    """The networks of some rows, in the order of all."""
    return [net for net in STUDY_NETS if any(row.net == net for row in rows)]


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _minus(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]


def _spread(found: Sequence[float]) -> str:
    return f"{fmean(found):.3f} ± {stdev(found):.3f}" if len(found) > 1 else f"{found[0]:.3f}"


def _interval(found: Sequence[float], digits: int = 3) -> str:
    mean, half = student_interval(found)
    return f"{mean:+.{digits}f} ± {half:.{digits}f}" if len(found) > 1 else f"{mean:+.{digits}f}"
