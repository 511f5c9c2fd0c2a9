# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Tables and pictures of a simulation: Dice against labels and clicks, and the labels that a strategy saves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import stats

from monai_effsam.labelling.simulating.rounds import RoundRow
from monai_effsam.reports.svg import INK, PALETTE, line, picture, text

__all__ = ["above_random", "labels_to_reach", "learning_curves", "savings", "simulation_table"]

BASELINE = "random"


def _mean(
    rows: Sequence[RoundRow], set_name: str, strategy: str
) -> dict[int, tuple[float, float, float, float]]:
    """Round -> labels, clicks, mean Dice and its standard deviation, over the seeds."""
    found: dict[int, tuple[float, float, float, float]] = {}
    own = [row for row in rows if (row.set_name, row.strategy) == (set_name, strategy)]
    for number in sorted({row.round for row in own}):
        of = [row for row in own if row.round == number]
        dice = np.array([row.dice for row in of])
        found[number] = (
            float(np.mean([row.labels for row in of])),
            float(np.mean([row.clicks for row in of])),
            float(dice.mean()),
            float(dice.std()),
        )
    return found


def _trained(
    rows: Sequence[RoundRow], set_name: str, strategy: str
) -> dict[int, tuple[float, float, float, float]]:
    """`_mean` without the round before any label, whose Dice would flatten the rest of a picture."""
    return {number: values for number, values in _mean(rows, set_name, strategy).items() if number}


def labels_to_reach(
    rows: Sequence[RoundRow], set_name: str, strategy: str, dice: float, *, for_good: bool = False
) -> float | None:
    """Labels at which the mean curve of a strategy reaches a Dice, between rounds by a straight line.

    Args:
        rows: of a simulation.
        set_name: of the data.
        strategy: that chose.
        dice: to reach.
        for_good: where the curve stays above from then on, rather than where it is first reached.

    Returns:
        None where it is never reached.
    """
    found: float | None = None
    before: tuple[float, float] | None = None
    for labels, _, mean, _ in _mean(rows, set_name, strategy).values():
        if mean < dice:
            found = None if for_good else found
        elif found is None:
            share = 1.0 if before is None else (dice - before[1]) / (mean - before[1])
            found = labels if before is None else before[0] + share * (labels - before[0])
        before = labels, mean
    return found


def savings(
    rows: Sequence[RoundRow], set_name: str, strategy: str, *, for_good: bool = False
) -> float | None:
    """Share of the labels saved on the way to what random choice reaches in its last round; None if never reached."""
    curve = _mean(rows, set_name, BASELINE)
    labels, _, dice, _ = curve[max(curve)]
    needed = labels_to_reach(rows, set_name, strategy, dice, for_good=for_good)
    return None if needed is None else 1 - needed / labels


def above_random(rows: Sequence[RoundRow], set_name: str, strategy: str) -> tuple[float, float]:
    """Dice above random choice of the same seed, mean over the rounds in which strategies differ.

    Args:
        rows: of a simulation.
        set_name: of the data.
        strategy: that chose.

    Returns:
        Mean over the seeds, and half of its 95 % interval (Student's t); NaN for a single seed.
    """
    own = {(r.strategy, r.seed, r.round): r.dice for r in rows if r.set_name == set_name and r.round > 1}
    by_seed: dict[int, list[float]] = {}
    for (name, seed, number), dice in own.items():
        if name == strategy and (BASELINE, seed, number) in own:
            by_seed.setdefault(seed, []).append(dice - own[BASELINE, seed, number])
    means = np.array([np.mean(values) for values in by_seed.values()])
    if len(means) < 2:
        return float(means.mean()) if len(means) else float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    return float(means.mean()), float(half)


def simulation_table(rows: Sequence[RoundRow]) -> str:
    """Markdown: for each set and strategy Dice by labels, clicks at the end, and what it saves against random."""
    parts = []
    for set_name in dict.fromkeys(row.set_name for row in rows):
        own = [row for row in rows if row.set_name == set_name]
        strategies = list(dict.fromkeys(row.strategy for row in own))
        seeds = len({row.seed for row in own})
        counts = [round(v[0]) for v in _mean(own, set_name, strategies[0]).values()]
        parts += [
            f"## {set_name}",
            "",
            f"Dice by labels, mean and standard deviation over {seeds} seeds.",
            "",
            f"| strategy | {' | '.join(map(str, counts))} |",
            f"|---|{'--:|' * len(counts)}",
        ]
        for strategy in strategies:
            curve = _mean(own, set_name, strategy)
            parts.append(
                f"| {strategy} | {' | '.join(f'{mean:.3f} ± {sd:.3f}' for _, _, mean, sd in curve.values())} |"
            )
        parts += [
            "",
            "| strategy | labels saved, first | for good | Dice above random, 95 % | clicks in all | clicks a label |",
            "|---|--:|--:|--:|--:|--:|",
            *(_summary(own, set_name, strategy) for strategy in strategies if BASELINE in strategies),
            "",
        ]
    return "\n".join(parts)


def _summary(rows: Sequence[RoundRow], set_name: str, strategy: str) -> str:
    saved = [savings(rows, set_name, strategy, for_good=good) for good in (False, True)]
    told = ["not reached" if share is None else f"{100 * share:.0f} %" for share in saved]
    above, half = above_random(rows, set_name, strategy)
    curve = _mean(rows, set_name, strategy)
    labels, clicks, _, _ = curve[max(curve)]
    gain = "–" if strategy == BASELINE else f"{above:+.3f} ± {half:.3f}"
    return f"| {strategy} | {told[0]} | {told[1]} | {gain} | {clicks:.0f} | {clicks / max(labels, 1):.2f} |"


def learning_curves(rows: Sequence[RoundRow], *, clicks: bool = False) -> str:
    """An SVG: for each set a panel, a curve a strategy, bars for the standard deviation over the seeds.

    Args:
        rows: of a simulation.
        clicks: against clicks rather than labels.
    """
    sets = list(dict.fromkeys(row.set_name for row in rows))
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    wide, high, left, top = 380.0, 260.0, 56.0, 40.0
    parts = []
    for number, set_name in enumerate(sets):
        x0 = left + number * (wide + 70)
        curves = {s: c for s in strategies if (c := _trained(rows, set_name, s))}
        last = max(v[int(clicks)] for c in curves.values() for v in c.values()) or 1.0
        values = [v[2] + sign * v[3] for c in curves.values() for v in c.values() for sign in (-1, 1)]
        low, top_value = np.floor(min(values) * 20) / 20, np.ceil(max(values) * 20) / 20
        span = max(top_value - low, 0.05)
        parts += _panel(x0, top, wide, high, set_name, (low, span, last), "clicks" if clicks else "labels")
        for s, curve in curves.items():
            colour = PALETTE[strategies.index(s) % len(PALETTE)]
            points = [
                (
                    x0 + wide * v[int(clicks)] / last,
                    top + high * (1 - (v[2] - low) / span),
                    high * v[3] / span,
                )
                for v in curve.values()
            ]
            parts += [line(a[0], a[1], b[0], b[1], colour, 2) for a, b in pairwise(points)]
            parts += [line(x, y - e, x, y + e, colour, 1) for x, y, e in points]
    for number, s in enumerate(strategies):
        x = left + 150 * number
        y = top + high + 56
        parts += [line(x, y - 4, x + 24, y - 4, PALETTE[number % len(PALETTE)], 3), text(x + 30, y, s)]
    width = max(left + len(sets) * (wide + 70), left + 150 * len(strategies) + 20)
    what = "clicks" if clicks else "labels"
    return picture(width, top + high + 72, parts, f"Dice against {what}, by strategy", alone=True)


def _panel(
    x0: float, top: float, wide: float, high: float, title: str, scale: tuple[float, float, float], axis: str
) -> list[str]:
    """Frame, grid and numbers of one set."""
    low, span, last = scale
    parts = [text(x0, top - 14, title, weight=600), line(x0, top + high, x0 + wide, top + high, INK)]
    for t in range(5):
        y = top + high * (1 - t / 4)
        parts += [
            line(x0, y, x0 + wide, y, "#ddd"),
            text(x0 - 8, y + 4, f"{low + span * t / 4:.3f}".rstrip("0"), anchor="end"),
        ]
        x = x0 + wide * t / 4
        parts.append(text(x, top + high + 18, f"{last * t / 4:.0f}", anchor="middle"))
    return [*parts, text(x0 + wide, top + high + 34, axis, anchor="end")]
