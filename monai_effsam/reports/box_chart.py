# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Boxes of several models, set by set, as an SVG file that stands alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from monai_effsam.reports.svg import INK, PALETTE, SOFT, WIDTH, diamond, grid_line, line, picture, text

__all__ = ["Box", "box_chart"]

_LEFT, _RIGHT, _TOP = 290, 24, 16
_ROW, _GAP = 26, 20


@dataclass(frozen=True, slots=True)
class Box:
    """Some values between 0 and 1, summed up.

    Args:
        low: left end of the whisker.
        lower: first quartile.
        median: of the values.
        upper: third quartile.
        high: right end of the whisker.
        mean: of the values.
    """

    low: float
    lower: float
    median: float
    upper: float
    high: float
    mean: float


def box_chart(
    groups: Mapping[str, Mapping[str, Box]], trivial: Mapping[str, float], label: str, title: str
) -> str:
    """A row a model in a block a set: whiskers, box, median as a thick line and mean as a dot.

    Args:
        groups: set -> model -> box; a model has one colour in all of them.
        trivial: set -> mean of the answer that needs no look at the picture; a diamond in a row of its own.
        label: of the axis, 0..1.
        title: what the plot shows.
    """
    span, y = WIDTH - _LEFT - _RIGHT, float(_TOP)
    names = dict.fromkeys(name for boxes in groups.values() for name in boxes)
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    parts: list[str] = []
    for group, boxes in groups.items():
        parts.append(text(12, y + 17, group, weight=600))
        for name, box in boxes.items():
            parts.append(text(_LEFT - 14, y + 17, name, anchor="end"))
            parts += _marks(box, y + _ROW / 2, span, colours[name], f"{group}, {name}")
            y += _ROW
        if group in trivial:
            parts.append(text(_LEFT - 14, y + 17, "trivial", anchor="end", colour=SOFT))
            x = _LEFT + span * trivial[group]
            parts.append(diamond(x, y + _ROW / 2, f"{group}, trivial answer: {trivial[group]:.3f}"))
            y += _ROW
        y += _GAP
    grid = [grid_line(_LEFT + span * t / 10, _TOP, y - _GAP / 2, t / 10) for t in range(0, 11, 2)]
    parts.append(text(_LEFT + span / 2, y + 28, label, anchor="middle", colour=SOFT))
    return picture(WIDTH, y + 40, [*grid, *parts], title, alone=True)


def _marks(box: Box, y: float, span: float, colour: str, title: str) -> list[str]:
    low, lower, median, upper, high, mean = (
        _LEFT + span * value for value in (box.low, box.lower, box.median, box.upper, box.high, box.mean)
    )
    said = f"{title}: median {box.median:.3f}, mean {box.mean:.3f}, quartiles {box.lower:.3f} and {box.upper:.3f}"
    size = f'x="{lower:.1f}" y="{y - 8:.1f}" width="{max(1.0, upper - lower):.1f}" height="16" rx="2"'
    paint = f'fill="{colour}" fill-opacity="0.3" stroke="{colour}"'
    return [
        line(low, y, high, y, colour, 1.4),
        f"<rect {size} {paint}><title>{escape(said)}</title></rect>",
        line(median, y - 8, median, y + 8, INK, 2.4),
        f'<circle cx="{mean:.1f}" cy="{y:.1f}" r="3" fill="{INK}"/>',
    ]
