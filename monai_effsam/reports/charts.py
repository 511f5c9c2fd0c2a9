# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Plots as SVG that stands inside a page: plain text, no script, no font or file from elsewhere."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from monai_effsam.reports.svg import INK, LINE, PALETTE, SOFT, WIDTH, diamond, grid_line, line, picture, text

__all__ = ["Strip", "reliability_plot", "stage_plot", "strip_plot"]

_DOT = "#0a6cb4"


@dataclass(frozen=True, slots=True)
class Strip:
    """One line of a strip plot.

    Args:
        title: of the line.
        values: 0..1, with the name of what each belongs to.
        trivial: mean of the answer that needs no look at the picture, or None.
    """

    title: str
    values: tuple[tuple[str, float], ...]
    trivial: float | None = None


def strip_plot(strips: Sequence[Strip], label: str) -> str:
    """Every value as a dot, with the box of its quartiles, the median and what is trivial.

    Args:
        strips: from top to bottom.
        label: of the axis, 0..1.
    """
    left, right, top, step = 290, 24, 12, 34
    span = WIDTH - left - right
    bottom = top + step * len(strips)
    parts = [grid_line(left + span * t / 10, top, bottom, t / 10) for t in range(0, 11, 2)]
    for number, strip in enumerate(strips):
        y = top + step * (number + 0.5)
        parts.append(text(left - 14, y + 4, strip.title, anchor="end"))
        parts += [_dot(left + span * value, y, name, value) for name, value in strip.values]
        if strip.values:
            low, middle, high = np.quantile([value for _, value in strip.values], (0.25, 0.5, 0.75))
            x, width = left + span * low, max(1.0, span * (high - low))
            parts.append(
                f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="{width:.1f}" height="18" rx="2" fill="none" '
                f'stroke="{INK}" stroke-width="1.2"/>'
            )
            x = left + span * middle
            parts.append(line(x, y - 9, x, y + 9, INK, 2.4))
        if strip.trivial is not None:
            parts.append(diamond(left + span * strip.trivial, y, f"trivial answer: {strip.trivial:.3f}"))
    parts.append(text(left + span / 2, bottom + 38, label, anchor="middle", colour=SOFT))
    return picture(WIDTH, bottom + 48, parts, f"{label} of every file, by row")


def reliability_plot(bins: Sequence[Mapping[str, Any]], title: str, said: str, true: str) -> str:
    """What was said against what was so: on the diagonal the two agree; the bars below count the items.

    Args:
        bins: `low`, `high`, `n`, `said` and `true` of each, as `metrics.calibration.ReliabilityBin` has them.
        title: of the plot.
        said: label of the level axis.
        true: label of the upright axis.
    """
    left, top, side, counts = 62, 40, 360, 56
    base = top + side
    parts = [text(left, 22, title, weight=600)]
    for t in range(0, 11, 2):
        parts.append(grid_line(left + side * t / 10, top, base + counts, t / 10))
        y = base - side * t / 10
        parts += [
            line(left, y, left + side, y, LINE),
            text(left - 8, y + 4, f"{t / 10:g}", anchor="end", colour=SOFT),
        ]
    parts.append(line(left, base, left + side, top, SOFT, 1.2, dash="5 4"))
    most = max((b["n"] for b in bins), default=1)
    places = []
    for b in bins:
        x, y = left + side * b["said"], base - side * b["true"]
        places.append(f"{x:.1f},{y:.1f}")
        tall, x0, width = counts * 0.8 * b["n"] / most, left + side * b["low"], side * (b["high"] - b["low"])
        parts.append(
            f'<rect x="{x0 + 1:.1f}" y="{base + counts - tall:.1f}" width="{width - 2:.1f}" height="{tall:.1f}" '
            f'fill="{_DOT}" opacity="0.3"><title>{b["n"]} items</title></rect>'
        )
    parts.append(
        f'<polyline points="{" ".join(places)}" fill="none" stroke="{_DOT}" stroke-width="2" opacity="0.6"/>'
    )
    for b, place in zip(bins, places, strict=True):
        x_text, y_text = place.split(",")
        parts.append(
            f'<circle cx="{x_text}" cy="{y_text}" r="5" fill="{_DOT}" stroke="#fff">'
            f"<title>said {b['said']:.2f}, so {b['true']:.2f}, {b['n']} items</title></circle>"
        )
    parts.append(text(left + side / 2, base + counts + 38, said, anchor="middle", colour=SOFT))
    parts.append(
        f'<g transform="rotate(-90 16 {top + side / 2:.0f})">'
        f"{text(16, top + side / 2, true, anchor='middle', colour=SOFT)}</g>"
    )
    return picture(left + side + 24, base + counts + 48, parts, title)


def stage_plot(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Milliseconds a file, stage by stage, a bar a set; a bar that is far longer than the others is cut, and says so.

    Args:
        rows: set -> stage -> median time [ms].
    """
    left, right, top, step = 170, 90, 44, 30
    span, bottom = WIDTH - left - right, top + step * len(rows)
    stages = list(dict.fromkeys(stage for row in rows.values() for stage in row))
    colours = {stage: PALETTE[i % len(PALETTE)] for i, stage in enumerate(stages)}
    totals = {name: sum(row.values()) for name, row in rows.items()}
    end = max(min(max(totals.values(), default=1.0), 3 * float(np.median([*totals.values()] or [1.0]))), 1e-6)
    parts = []
    for number, stage in enumerate(stages):
        place = left + 120 * number
        parts.append(f'<rect x="{place}" y="12" width="12" height="12" rx="3" fill="{colours[stage]}"/>')
        parts.append(text(place + 18, 22, stage, colour=SOFT))
    for number, (name, row) in enumerate(rows.items()):
        y, x = top + step * number, float(left)
        parts.append(text(left - 12, y + 17, name, anchor="end"))
        for stage, value in row.items():
            width = max(0.0, min(span * value / end, left + span - x))
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="{step - 10}" '
                f'fill="{colours[stage]}"><title>{escape(stage)}: {value:.1f} ms</title></rect>'
            )
            x += width
        cut = " (cut)" if totals[name] > end * 1.001 else ""
        parts.append(text(x + 8, y + 17, f"{totals[name]:.0f} ms{cut}", colour=SOFT))
    return picture(WIDTH, bottom + 8, parts, "time a file by stage and set")


def _dot(x: float, y: float, name: str, value: float) -> str:
    """A value, moved up or down by its name so that equal ones stay visible; the same in every run."""
    shift = (zlib.crc32(name.encode()) % 1000 / 1000 - 0.5) * 18
    return (
        f'<circle cx="{x:.1f}" cy="{y + shift:.1f}" r="3" fill="{_DOT}" opacity="0.35">'
        f"<title>{escape(name)}: {value:.3f}</title></circle>"
    )
