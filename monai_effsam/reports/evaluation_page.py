# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The report of an evaluation, one HTML page: tables, worst cases, plots; everything inline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from monai_effsam.reports.charts import Strip, reliability_plot, stage_plot, strip_plot
from monai_effsam.reports.page import Picture, make_article, render_page
from monai_effsam.reports.table import method_of, origin_of, results_sections
from monai_effsam.reports.table_form import Section, html_table

__all__ = ["evaluation_page"]


def evaluation_page(
    summary: Mapping[str, Any], strips: Sequence[Strip], worst: Mapping[str, Sequence[Picture]]
) -> str:
    """The page's HTML.

    Args:
        summary: content of `summary.json`.
        strips: Dice of every file, a strip a row.
        worst: of each set the cases that went worst, the worst first.
    """
    scores, *others = results_sections(summary)
    body = [_section("scores", scores.heading or "Scores", _tables(scores))]
    body += [_section("spread", "Every file", _spread(strips))] if strips else []
    shown = {name: pictures for name, pictures in worst.items() if pictures}
    if shown:
        links = "".join(f'<a href="#worst-{escape(name)}">{escape(name)}</a>' for name in shown)
        body.append(_section("worst", "Worst cases", f'<nav class="small">{links}</nav>'))
    for name, pictures in shown.items():
        cards = "".join(map(make_article, pictures))
        body.append(_section(f"worst-{name}", name, f'<div class="cards">{cards}</div>'))
    for section in others:
        extra = _PLOTS.get(section.heading)
        plots = extra(summary) if extra else ""
        body.append(_section("", section.heading, plots + _tables(section)))
    body.append(_section("method", "How it was measured", f"<p>{_marked(method_of(summary))}</p>"))
    footer = "".join(f'<p class="soft small">{_marked(text)}</p>' for text in origin_of(summary))
    made = summary["made"]
    name = summary["model"]["name"]
    intro = f"Split {made['split']}, {made['date']}. {_prompt_of(made)} Pictures keep the terms of their data sets."
    return render_page(f"Results of {name}", [intro], "\n".join(body), footer)


def _prompt_of(made: Mapping[str, Any]) -> str:
    robot = made.get("robot")
    if not robot:
        return "Without a prompt."
    clicks = f"{robot['clicks']} click{'' if robot['clicks'] == 1 else 's'}"
    start = clicks if robot["start"] == "points" else f"box, then {clicks}" if robot["clicks"] else "box"
    return f"Simulated user: {start}, jitter {robot['jitter']} px at 1024."


def _section(anchor: str, heading: str, content: str) -> str:
    name = f' id="{escape(anchor)}"' if anchor else ""
    return f"<section{name}><h2>{escape(heading)}</h2>{content}</section>"


def _tables(section: Section) -> str:
    note = f'<p class="soft small">{_marked(section.note)}</p>' if section.note else ""
    tables = "".join(map(html_table, section.tables))
    return f"<article>{tables}{note}</article>"


def _spread(strips: Sequence[Strip]) -> str:
    note = (
        "A dot is a file whose label holds the target (hover for its name); the box spans the middle half, the thick "
        "line is the median, the orange diamond the trivial answer's mean."
    )
    return f'<article>{strip_plot(strips, "Dice")}<p class="soft small">{note}</p></article>'


def _reliability(summary: Mapping[str, Any]) -> str:
    axes = {
        "presence": ("Presence", "told probability", "share of pictures that hold the target"),
        "quality": ("Quality", "told estimate of IoU", "true IoU"),
    }
    bins = summary.get("reliability", {})
    plots = "".join(reliability_plot(bins[name], *axes[name]) for name in axes if bins.get(name))
    note = "On the dashed line what was told is what was so. Bars below: how many were told so."
    return (
        f'<article><div class="row">{plots}</div><p class="soft small">{note}</p></article>' if plots else ""
    )


def _speed(summary: Mapping[str, Any]) -> str:
    stages = {name: facts.get("median_stages_ms", {}) for name, facts in summary["sets"].items()}
    return f"<article>{stage_plot(stages)}</article>" if any(stages.values()) else ""


def _marked(text: str) -> str:
    """Escaped, with `code` as in Markdown."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


_PLOTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "Presence and quality": _reliability,
    "Quality": _reliability,
    "Time and memory": _speed,
}
"""What is drawn above the tables of a section."""
