# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A table of texts, as Markdown or as HTML, and numbers as its cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Section", "Table", "as_fraction", "as_share", "as_whole", "html_table", "markdown_table"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts.

    Args:
        titles: of the columns.
        rows: one cell a column; `**bold**` as in Markdown.
        align: `l` or `r` a column; the first left and the others right by default.
    """

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the results.

    Args:
        heading: of the part, may be empty.
        tables: one after the other.
        note: what a reader should know of them, may be empty.
    """

    heading: str
    tables: tuple[Table, ...]
    note: str = ""


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A table as Markdown.

    Args:
        titles: of the columns.
        rows: one cell a column.
        align: `l` or `r` a column; the first left and the others right by default.
    """
    rules = ["---" if side == "l" else "--:" for side in align or "l" + "r" * (len(titles) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (titles, rules, *rows))


def html_table(table: Table) -> str:
    """A table as HTML that scrolls sideways where the window is too narrow for it."""
    head = "".join(f"<th>{_cell(title)}</th>" for title in table.titles)
    rows = "".join(f"<tr>{''.join(f'<td>{_cell(text)}</td>' for text in row)}</tr>" for row in table.rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text))


def as_whole(value: float | None) -> str:
    """Without decimals; a dash for what is not known."""
    return "–" if value is None else f"{value:.0f}"


def as_share(value: float | None) -> str:
    """In per cent; a dash for what is not known."""
    return "–" if value is None else f"{value:.0%}"


def as_fraction(value: float | None) -> str:
    """With three decimals; a dash for what is not known."""
    return "–" if value is None else f"{value:.3f}"
