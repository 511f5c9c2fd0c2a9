# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A confusion matrix as an SVG file that stands alone: a row a truth, a column an answer, shaded by its share."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from monai_effsam.reports.svg import INK, PALETTE, SOFT, picture, text

__all__ = ["confusion_chart"]

_CELL, _HIGH, _LEFT, _TOP = 86, 40, 118, 52
_PALE = 0.5
"""Share of a row above which the numbers in its cell are white."""


def confusion_chart(table: Sequence[Sequence[int]], names: Sequence[str], title: str) -> str:
    """Counts of answers; rows without any picture are left out.

    Args:
        table: (K, K) pictures, a row a truth, a column an answer.
        names: of the K classes.
        title: what the plot shows.
    """
    rows = [(name, row) for name, row in zip(names, table, strict=True) if sum(row)]
    width, height = _LEFT + _CELL * len(names) + 12, _TOP + _HIGH * len(rows) + 12
    parts = [text(12, _TOP - 34, title, weight=600)]
    for place, name in enumerate(names):
        parts.append(text(_LEFT + _CELL * (place + 0.5), _TOP - 10, name, anchor="middle", colour=SOFT))
    for number, (name, row) in enumerate(rows):
        y = _TOP + _HIGH * number
        parts.append(text(_LEFT - 10, y + _HIGH / 2 + 5, name, anchor="end"))
        parts += [_cell(_LEFT + _CELL * place, y, count, sum(row), f"{name} called {answer}")
                  for place, (answer, count) in enumerate(zip(names, row, strict=True))]  # fmt: skip
    return picture(width, height, parts, title, alone=True)


def _cell(x: float, y: float, count: int, total: int, title: str) -> str:
    share = count / total
    words = text(
        x + _CELL / 2, y + _HIGH / 2 + 5, str(count), anchor="middle", colour="#fff" if share > _PALE else INK
    )
    return (
        f'<g><title>{escape(title)}: {count} of {total}</title><rect x="{x:.1f}" y="{y:.1f}" '
        f'width="{_CELL - 2}" height="{_HIGH - 2}" fill="{PALETTE[0]}" fill-opacity="{share:.3f}" '
        f'stroke="#dfe4ea"/>{words if count else ""}</g>'
    )
