# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Curves with bands, and dots by name, in panels side by side, as an SVG file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import NamedTuple

from monai_effsam.reports.svg import INK, LINE, PALETTE, SOFT, line, picture, text

__all__ = ["CurvePanel", "CurvePoint", "DotPanel", "curve_picture", "dot_picture"]

_WIDE, _HIGH, _LEFT, _TOP, _GAP = 400.0, 260.0, 72.0, 44.0, 84.0


class CurvePoint(NamedTuple):
    """A point of a curve, and the band around it."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """One plot of a picture.

    Args:
        title: above it.
        x_label: of the level axis.
        curves: by name; a name has the same colour in every panel.
        log: both axes logarithmic, to the base of 10 upright; then every value is above 0.
    """

    title: str
    x_label: str
    curves: Mapping[str, Sequence[CurvePoint]]
    log: bool = False


@dataclass(frozen=True, slots=True)
class DotPanel:
    """Values by name.

    Args:
        title: above it.
        rows: name -> values, from top to bottom.
    """

    title: str
    rows: Mapping[str, Sequence[float]]


def curve_picture(panels: Sequence[CurvePanel], label: str) -> str:
    """Panels side by side, a number at each x that any curve has, the names of the curves below.

    Args:
        panels: each with at least one point.
        label: what the picture shows, for who cannot see it.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    parts: list[str] = []
    for number, panel in enumerate(panels):
        parts += _curves(panel, _LEFT + number * (_WIDE + _GAP), colours)
    bottom = _TOP + _HIGH + 62
    x = _LEFT
    for name in names:
        parts += [line(x, bottom - 4, x + 24, bottom - 4, colours[name], 3), text(x + 30, bottom, name)]
        x += 62 + 8.0 * len(name)
    width = max(_LEFT + len(panels) * (_WIDE + _GAP) - _GAP + 24, x)
    return picture(width, bottom + 16, parts, label, alone=True)


def _curves(panel: CurvePanel, x0: float, colours: Mapping[str, str]) -> list[str]:
    points = [p for curve in panel.curves.values() for p in curve]
    level = math.log if panel.log else float
    xs = sorted({p.x for p in points})
    left, right = level(xs[0]), level(xs[-1])
    ticks = _decades(points) if panel.log else _even(points)
    low, high = (math.log(t) if panel.log else t for t in (ticks[0], ticks[-1]))

    def across(value: float) -> float:
        return x0 + 12 + (_WIDE - 24) * (level(value) - left) / ((right - left) or 1.0)

    def up(value: float) -> float:
        return _TOP + _HIGH * (1 - (level(value) - low) / ((high - low) or 1.0))

    parts = [text(x0, _TOP - 16, panel.title, weight=600)]
    for tick in ticks:
        parts += [
            line(x0, up(tick), x0 + _WIDE, up(tick), LINE),
            text(x0 - 8, up(tick) + 4, f"{tick:g}", anchor="end", colour=SOFT),
        ]
    parts += [text(across(x), _TOP + _HIGH + 18, f"{x:g}", anchor="middle", colour=SOFT) for x in xs]
    parts += [
        line(x0, _TOP + _HIGH, x0 + _WIDE, _TOP + _HIGH, INK),
        text(x0 + _WIDE, _TOP + _HIGH + 36, panel.x_label, anchor="end", colour=SOFT),
    ]
    for name, curve in panel.curves.items():
        band = [(p.x, p.high) for p in curve] + [(p.x, p.low) for p in reversed(curve)]
        outline = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in band)
        parts.append(f'<polygon points="{outline}" fill="{colours[name]}" opacity="0.15"/>')
    for name, curve in panel.curves.items():
        places = [(across(p.x), up(p.y)) for p in curve]
        parts += [line(*a, *b, colours[name], 2) for a, b in pairwise(places)]
        parts += [
            _dot(x, y, colours[name], f"{name}: {p.y:.4g} at {p.x:g}")
            for (x, y), p in zip(places, curve, strict=True)
        ]
    return parts


def dot_picture(panels: Sequence[DotPanel], label: str) -> str:
    """Panels side by side, every value a dot, their mean a line.

    Args:
        panels: each with at least one value, the rows of all alike.
        label: what the picture shows, for who cannot see it.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.rows))
    margin, step = 24 + 8.0 * max(map(len, names)), 34.0
    bottom = _TOP + step * len(names)
    parts = [text(margin - 12, _TOP + step * (i + 0.5) + 4, n, anchor="end") for i, n in enumerate(names)]
    for number, panel in enumerate(panels):
        x0 = margin + number * (_WIDE + 40)
        ticks = _even([CurvePoint(0, v, v, v) for values in panel.rows.values() for v in values])
        scale = _WIDE / (ticks[-1] - ticks[0])
        parts.append(text(x0, _TOP - 16, panel.title, weight=600))
        for tick in ticks:
            x = x0 + scale * (tick - ticks[0])
            parts += [
                line(x, _TOP, x, bottom, LINE),
                text(x, bottom + 18, f"{tick:g}", anchor="middle", colour=SOFT),
            ]
        for row, name in enumerate(names):
            values, y = panel.rows.get(name, ()), _TOP + step * (row + 0.5)
            places = [x0 + scale * (value - ticks[0]) for value in values]
            parts += [_dot(x, y, PALETTE[0], f"{name}: {v:.3f}") for x, v in zip(places, values, strict=True)]
            if places:
                mean = sum(places) / len(places)
                parts.append(line(mean, y - 11, mean, y + 11, INK, 2.4))
    width = margin + len(panels) * (_WIDE + 40)
    return picture(width, bottom + 34, parts, label, alone=True)


def _dot(x: float, y: float, colour: str, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{escape(title)}</title></circle>'


def _even(points: Sequence[CurvePoint]) -> list[float]:
    """Round numbers around all values and bands, four to eight."""
    low, high = min(min(p.y, p.low) for p in points), max(max(p.y, p.high) for p in points)
    spread = max(high - low, 1e-6)
    step = next(
        s
        for power in range(-7, 12)
        for s in (10.0**power, 2 * 10.0**power, 5 * 10.0**power)
        if spread / s <= 6
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * t, 9) for t in range(first, max(last, first + 1) + 1)]


def _decades(points: Sequence[CurvePoint]) -> list[float]:
    """Powers of ten around all values and bands."""
    low, high = min(min(p.y, p.low) for p in points), max(max(p.y, p.high) for p in points)
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]
