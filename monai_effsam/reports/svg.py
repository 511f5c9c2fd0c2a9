# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The marks that plots are made of, as SVG: plain text, no script, no font or file from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = [
    "INK",
    "LINE",
    "PALETTE",
    "SOFT",
    "TRIVIAL",
    "WIDTH",
    "diamond",
    "grid_line",
    "line",
    "picture",
    "text",
]

WIDTH = 1072
"""Of a plot that fills a page [px]."""

INK, SOFT, LINE = "#1d2430", "#5b6675", "#dfe4ea"
TRIVIAL = "#d55e00"
"""Colour of the answer that needs no look at the picture."""

PALETTE = ("#0a6cb4", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#8a6d3b")
"""Colours that people with any colour vision tell apart."""

_ALONE = (
    'xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" font-size="14" width="{width:.0f}" '
    'height="{height:.0f}" '
)


def line(
    x0: float, y0: float, x1: float, y1: float, colour: str, width: float = 1.0, *, dash: str = ""
) -> str:
    """A straight line; `dash` as in SVG's `stroke-dasharray`."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashes}/>'
    )


def grid_line(x: float, top: float, bottom: float, value: float) -> str:
    """An upright line of the grid, with its number below."""
    return line(x, top, x, bottom, LINE) + text(x, bottom + 18, f"{value:g}", anchor="middle", colour=SOFT)


def text(
    x: float, y: float, words: str, *, anchor: str = "start", colour: str = INK, weight: int = 400
) -> str:
    """Words whose baseline is at y; `anchor` says which end of them is at x: `start`, `middle` or `end`."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">'
        f"{escape(words)}</text>"
    )


def diamond(x: float, y: float, title: str) -> str:
    """The mark of what is trivial; the title shows under the pointer."""
    return (
        f'<path d="M{x:.1f} {y - 6:.1f}l5 6l-5 6l-5 -6z" fill="{TRIVIAL}" stroke="#fff">'
        f"<title>{escape(title)}</title></path>"
    )


def picture(width: float, height: float, parts: Sequence[str], label: str, *, alone: bool = False) -> str:
    """The marks as one plot.

    Args:
        width: of the plot [px].
        height: of the plot [px].
        parts: marks.
        label: what the plot shows, for who cannot see it.
        alone: a file of its own, on white, rather than a part of a page.
    """
    more = _ALONE.format(width=width, height=height) if alone else ""
    ground = '<rect width="100%" height="100%" fill="#fff"/>' if alone else ""
    return (
        f'<svg {more}viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" role="img" '
        f'aria-label="{escape(label)}">{ground}{"".join(parts)}</svg>'
    )
