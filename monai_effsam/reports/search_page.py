# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a search for an encoder found, as one page: the network drawn, the way there, and what else was judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from monai_effsam.reports.architecture_drawing import architecture_drawing
from monai_effsam.reports.page import render_page
from monai_effsam.reports.svg import LINE, PALETTE, SOFT, line, picture, text
from monai_effsam.reports.table_form import Table, html_table

__all__ = ["search_page", "trajectory_plot"]

_CURVES = (
    ("choice_loss", "error, choices"),
    ("loss", "error, weights"),
    ("cost", "mean cost"),
    ("entropy", "entropy"),
)
_LEFT, _WIDE, _HIGH, _GAP = 62, 460, 150, 64  # px


def search_page(
    ranked: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> str:
    """The page's HTML.

    Args:
        ranked: judged networks, best first: `id`, `score`, `cost`, `mmacs`, `parameters`, `architecture`.
        rows: steps of supernets: `frame`, `step`, and the curves; empty for other searchers.
        facts: `plan`, `space`, `budget`, `unit`, `teacher`, `pictures`; `inherits` if they began with weights.
    """
    best, unit = ranked[0], facts["unit"]
    first = (
        f"Of the space {facts['space']}, within {facts['budget']:g} {unit}, by the searcher {facts['plan']}, from the "
        f"embeddings of {facts['teacher']} on {facts['pictures']} pictures."
    )
    second = (
        f"The best network, {best['id']}, takes {best['cost']:.2f} {unit}, has {best['mmacs']:.0f} million multiply-"
        f"accumulates and {best['parameters'] / 1e6:.2f} million parameters in its encoder."
    )
    told = [first, second]
    if "inherits" in facts:
        third = (
            f"Every network began with the weights of {facts['inherits']}, where it has such blocks; the search "
            "therefore prefers what can inherit."
        )
        told.append(third)
    cells = tuple(
        (
            one["id"],
            f"{-one['score']:.4f}",
            f"{one['cost']:.2f}",
            f"{one['mmacs']:.0f}",
            f"{one['parameters'] / 1e6:.2f}",
        )
        for one in ranked
    )
    titles = ("network", "error after a short distillation", f"cost [{unit}]", "MMACs", "M parameters")
    parts = [
        f"<section><h2>The network</h2><article>{architecture_drawing(best['architecture'])}</article></section>"
    ]
    for frame in dict.fromkeys(row["frame"] for row in rows):
        plot = trajectory_plot([row for row in rows if row["frame"] == frame], facts["budget"], unit)
        parts.append(f"<section><h2>The way there: {escape(frame)}</h2><article>{plot}</article></section>")
    parts.append(f"<section><h2>Judged</h2><article>{html_table(Table(titles, cells))}</article></section>")
    note = "Error: mean squared difference from the teacher's embedding, on pictures of other patients or sequences."
    return render_page(
        "A network for this machine", told, "\n".join(parts), f"<p class='soft small'>{note}</p>"
    )


def trajectory_plot(rows: Sequence[Mapping[str, float]], budget: float, unit: str) -> str:
    """Errors, mean cost and entropy over the steps of one supernet, as SVG; the dashed line is the budget.

    Args:
        rows: of the steps.
        budget: drawn among the costs.
        unit: of the costs.
    """
    parts: list[str] = []
    for number, (key, title) in enumerate(_CURVES):
        x0 = _LEFT + (number % 2) * (_WIDE + _GAP)
        y0 = 34 + (number // 2) * (_HIGH + _GAP)
        name = f"{title} [{unit}]" if key == "cost" else title
        parts += _panel(rows, key, name, (x0, y0), PALETTE[number], budget if key == "cost" else None)
    width, height = _LEFT + 2 * _WIDE + _GAP + 20, 34 + 2 * (_HIGH + _GAP)
    return picture(
        width, height, parts, "Errors, mean cost and entropy of the choices over the steps of a search."
    )


def _panel(
    rows: Sequence[Mapping[str, float]],
    key: str,
    title: str,
    place: tuple[float, float],
    colour: str,
    budget: float | None,
) -> list[str]:
    x0, y0 = place
    points = [(row["step"], row[key]) for row in rows if key in row]
    if not points:
        return []
    high = max(value for _, value in points)
    high = 1.0 if key == "entropy" else max(high, budget or 0.0) * 1.05 or 1.0
    last = max(row["step"] for row in rows)

    def at(step: float, value: float) -> tuple[float, float]:
        return x0 + _WIDE * step / last, y0 + _HIGH * (1 - min(value, high) / high)

    parts = [text(x0, y0 - 12, title, weight=600), line(x0, y0 + _HIGH, x0 + _WIDE, y0 + _HIGH, LINE)]
    for share in (0.0, 0.5, 1.0):
        parts.append(line(x0, y0 + _HIGH * (1 - share), x0 + _WIDE, y0 + _HIGH * (1 - share), LINE))
        parts.append(
            text(x0 - 8, y0 + _HIGH * (1 - share) + 4, f"{high * share:.3g}", anchor="end", colour=SOFT)
        )
    every = -(-len(points) // 400)
    path = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in points[::every])
    parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    if budget is not None:
        y = at(0, budget)[1]
        parts.append(line(x0, y, x0 + _WIDE, y, SOFT, 1.2, dash="5 4"))
    parts.append(text(x0 + _WIDE, y0 + _HIGH + 18, f"step {last:g}", anchor="end", colour=SOFT))
    return parts
