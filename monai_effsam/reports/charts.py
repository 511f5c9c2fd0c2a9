# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Plots as SVG that stands inside a page: plain text, no script, no font or file from elsewhere."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

__all__ = ["Strip", "reliability_plot", "stage_plot", "strip_plot"]

_WIDTH = 1072
_INK, _SOFT, _LINE = "#1d2430", "#5b6675", "#dfe4ea"
_DOT, _BOX, _TRIVIAL = "#0a6cb4", "#0a6cb4", "#d55e00"
_STAGES = ("#0a6cb4", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#8a6d3b")


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
    span = _WIDTH - left - right
    bottom = top + step * len(strips)
    parts = [_grid_line(left + span * t / 10, top, bottom, t / 10) for t in range(0, 11, 2)]
    for number, strip in enumerate(strips):
        y = top + step * (number + 0.5)
        parts.append(_text(left - 14, y + 4, strip.title, anchor="end"))
        parts += [_dot(left + span * value, y, name, value) for name, value in strip.values]
        if strip.values:
            low, middle, high = np.quantile([value for _, value in strip.values], (0.25, 0.5, 0.75))
            x, width = left + span * low, max(1.0, span * (high - low))
            parts.append(
                f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="{width:.1f}" height="18" rx="2" fill="none" '
                f'stroke="{_INK}" stroke-width="1.2"/>'
            )
            x = left + span * middle
            parts.append(_line(x, y - 9, x, y + 9, _INK, 2.4))
        if strip.trivial is not None:
            x = left + span * strip.trivial
            parts.append(
                f'<path d="M{x:.1f} {y - 6:.1f}l5 6l-5 6l-5 -6z" fill="{_TRIVIAL}" stroke="#fff">'
                f"<title>trivial answer: {strip.trivial:.3f}</title></path>"
            )
    parts.append(_text(left + span / 2, bottom + 38, label, anchor="middle", colour=_SOFT))
    return _svg(_WIDTH, bottom + 48, parts, f"{label} of every file, by row")


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
    parts = [_text(left, 22, title, weight=600)]
    for t in range(0, 11, 2):
        parts.append(_grid_line(left + side * t / 10, top, base + counts, t / 10))
        y = base - side * t / 10
        parts += [
            _line(left, y, left + side, y, _LINE),
            _text(left - 8, y + 4, f"{t / 10:g}", anchor="end", colour=_SOFT),
        ]
    parts.append(_line(left, base, left + side, top, _SOFT, 1.2, dash="5 4"))
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
    parts.append(_text(left + side / 2, base + counts + 38, said, anchor="middle", colour=_SOFT))
    parts.append(
        f'<g transform="rotate(-90 16 {top + side / 2:.0f})">'
        f"{_text(16, top + side / 2, true, anchor='middle', colour=_SOFT)}</g>"
    )
    return _svg(left + side + 24, base + counts + 48, parts, title)


def stage_plot(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Milliseconds a file, stage by stage, a bar a set; a bar that is far longer than the others is cut, and says so.

    Args:
        rows: set -> stage -> median time [ms].
    """
    left, right, top, step = 170, 90, 44, 30
    span, bottom = _WIDTH - left - right, top + step * len(rows)
    stages = list(dict.fromkeys(stage for row in rows.values() for stage in row))
    colours = {stage: _STAGES[i % len(_STAGES)] for i, stage in enumerate(stages)}
    totals = {name: sum(row.values()) for name, row in rows.items()}
    end = max(min(max(totals.values(), default=1.0), 3 * float(np.median([*totals.values()] or [1.0]))), 1e-6)
    parts = []
    for number, stage in enumerate(stages):
        place = left + 120 * number
        parts.append(f'<rect x="{place}" y="12" width="12" height="12" rx="3" fill="{colours[stage]}"/>')
        parts.append(_text(place + 18, 22, stage, colour=_SOFT))
    for number, (name, row) in enumerate(rows.items()):
        y, x = top + step * number, float(left)
        parts.append(_text(left - 12, y + 17, name, anchor="end"))
        for stage, value in row.items():
            width = max(0.0, min(span * value / end, left + span - x))
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="{step - 10}" '
                f'fill="{colours[stage]}"><title>{escape(stage)}: {value:.1f} ms</title></rect>'
            )
            x += width
        cut = " (cut)" if totals[name] > end * 1.001 else ""
        parts.append(_text(x + 8, y + 17, f"{totals[name]:.0f} ms{cut}", colour=_SOFT))
    return _svg(_WIDTH, bottom + 8, parts, "time a file by stage and set")


def _dot(x: float, y: float, name: str, value: float) -> str:
    """A value, moved up or down by its name so that equal ones stay visible; the same in every run."""
    shift = (zlib.crc32(name.encode()) % 1000 / 1000 - 0.5) * 18
    return (
        f'<circle cx="{x:.1f}" cy="{y + shift:.1f}" r="3" fill="{_DOT}" opacity="0.35">'
        f"<title>{escape(name)}: {value:.3f}</title></circle>"
    )


def _grid_line(x: float, top: float, bottom: float, value: float) -> str:
    number = _text(x, bottom + 18, f"{value:g}", anchor="middle", colour=_SOFT)
    return _line(x, top, x, bottom, _LINE) + number


def _line(
    x0: float, y0: float, x1: float, y1: float, colour: str, width: float = 1.0, *, dash: str = ""
) -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashes}/>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
