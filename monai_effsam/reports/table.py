# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The results of an evaluation as a page of Markdown; every figure comes from `summary.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["markdown_table", "results_page", "score_table"]

_METHOD = """\
One model for all rows, the modality told, no prompt, no target named. A score compares the mask file that
`effsam segment` writes with the label, on the stored grid of the file: Dice of a picture, or of a whole volume. Pixels
get a target where its probability is at least 0.5 and no other target's is higher; a target whose presence is below 0.5
is left out. Dice rows hold the files whose label has the target; the pooled row of the kidneys has one score a kidney.
The interval is a 95 % bootstrap of the mean that draws patients (`case`), not files.
"""


def results_page(summary: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        summary: content of `summary.json`.
    """
    made, model = summary["made"], summary["model"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    origin = (
        f"Made by `{made['command']}` on {made['date']}; not edited. Split `{made['split']}`, seed {made['seed']}, "
        f"device {made['device']}, {made['threads']} threads on {made['cores']} cores ({made['machine']}). {versions}."
    )
    checksum = f"Model sha256: `{model['sha256']}`."
    parts = [f"# Results of {model['name']}", origin, checksum, score_table(summary["rows"])]
    if summary["others"]:
        parts += ["## Other targets", _others_table(summary["others"])]
    parts += ["## Time and memory", _cost_table(summary), _sets_table(summary["sets"])]
    parts += ["## Presence and quality", _calibration_table(summary["calibration"])]
    return "\n\n".join([*parts, "## How it was measured", _METHOD])


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows that a release is judged by, with floor and aim."""
    titles = (
        "",
        "n",
        "patients",
        "mean",
        "95 %",
        "median",
        "10th pct.",
        "below .5",
        "floor",
        "aim",
        "reached",
    )
    return markdown_table(titles, (_score_cells(row) for row in rows))


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A table.

    Args:
        titles: of the columns.
        rows: one cell a column.
        align: `l` or `r` a column; the first left and the others right by default.
    """
    rules = ["---" if side == "l" else "--:" for side in align or "l" + "r" * (len(titles) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (titles, rules, *rows))


def _score_cells(row: Mapping[str, Any]) -> list[str]:
    score = row["score"]
    limits = [_number(row[key], row) for key in ("floor", "aim")]
    if score is None:
        return [row["title"], "0", "0", *["–"] * 5, *limits, "–"]
    mean, low, high = (_number(score[key], row) for key in ("mean", "low", "high"))
    spread = (
        ["–"] * 3
        if row["counts"] == "absent"
        else [_number(score["median"], row), _number(score["tenth"], row), f"{score['below_half']:.0%}"]
    )
    counts = [str(score["n"]), str(score["groups"])]
    return [row["title"], *counts, f"**{mean}**", f"{low} to {high}", *spread, *limits, _reached(row)]


def _number(value: float | None, row: Mapping[str, Any]) -> str:
    if value is None:
        return "–"
    return f"{value:.0%}" if row["counts"] == "absent" else f"{value:.3f}"


def _reached(row: Mapping[str, Any]) -> str:
    mean = row["score"]["mean"]
    if row["aim"] is not None and mean >= row["aim"]:
        return "aim"
    if row["floor"] is not None:
        return "floor" if mean >= row["floor"] else "no"
    return "–"


def _others_table(rows: Sequence[Mapping[str, Any]]) -> str:
    titles = (
        "",
        "n",
        "patients",
        "mean",
        "95 %",
        "median",
        "10th pct.",
        "below .5",
        "n without",
        "of these clear",
    )
    cells = []
    for row in rows:
        absent = row["absent"]
        clear = "–" if absent["clear"] is None else f"{absent['clear']:.0%}"
        cells.append([*_score_cells(row)[:8], str(absent["n"]), clear])
    return markdown_table(titles, cells)


def _cost_table(summary: Mapping[str, Any]) -> str:
    names = {
        "median_ms": ("median time a picture, file to overlay [ms]", summary["time"]["median_ms"]),
        "peak_mb": ("peak memory of the process [MB]", summary["peak_mb"]),
    }
    rows = []
    for key, (title, value) in names.items():
        ceiling, aim = summary["limits"][key]
        rows.append([title, *(_plain(v) for v in (value, ceiling, aim))])
    return markdown_table(("", "measured", "at most", "aim"), rows)


def _sets_table(sets: Mapping[str, Mapping[str, Any]]) -> str:
    titles = ("set", "files", "slices", "patients", "median ms a file", "wall ms a file", "foreign")
    keys = ("files", "slices", "groups", "median_ms", "wall_ms_a_file", "files_with_foreign_targets")
    table = markdown_table(
        titles, ([name, *(_plain(facts[k]) for k in keys)] for name, facts in sets.items())
    )
    note = (
        "Reading, network and writing overlap: the median is the sum of a file's stages, the wall time that of the "
        "folder run divided by its files. Foreign: files in which a target that the set does not label was outlined."
    )
    return f"{table}\n\n{note}"


def _calibration_table(sets: Mapping[str, Mapping[str, Any]]) -> str:
    titles = (
        "set",
        "answers",
        "of these present",
        "presence right",
        "its error",
        "masks",
        "quality off by",
        "bias",
    )
    rows = [
        [
            name,
            str(facts["told"]),
            str(facts["present"]),
            _share(facts.get("presence_right")),
            _fraction(facts.get("presence_error")),
            str(facts["masks"]),
            _fraction(facts.get("quality_error")),
            _fraction(facts.get("quality_bias")),
        ]
        for name, facts in sets.items()
        if facts["told"]
    ]
    note = (
        "Single pictures only, over the targets that a set labels. Presence is right if it is at least 0.5 just where "
        "the label holds the target; its error is the expected calibration error in ten bins. Quality is compared with "
        "the true IoU of masks that are not empty: mean distance, and mean of estimate minus truth."
    )
    return f"{markdown_table(titles, rows)}\n\n{note}" if rows else "No single pictures."


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _fraction(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
