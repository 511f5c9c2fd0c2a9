# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The results of an evaluation as tables; every figure comes from `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_effsam.reports.side_tables import calibration_section, cost_section
from monai_effsam.reports.table_form import Section, Table, as_fraction, as_share, as_whole, markdown_table

__all__ = ["method_of", "origin_of", "results_page", "results_sections", "score_table", "trivial_note"]

_METHOD = """\
One model for all rows, the modality told, no prompt, no target named. A score compares the mask file that
`effsam segment` writes with the label, on the stored grid of the file: Dice of a picture, or of a whole volume. Pixels
get a target where its probability is at least 0.5 and no other target's is higher; a target whose presence is below 0.5
is left out. Dice rows hold the files whose label has the target; the pooled row of the kidneys has one score a kidney.
The interval is a 95 % bootstrap of the mean that draws patients (`case`), not files.
"""

_ROBOT_METHOD = """\
One model for all rows, the modality told, one target asked for at a time, wherever the label has it. A simulated user
prompts: {start}, all of it at once; then clicks, each at the deepest pixel of the largest region that is missing or too
much. Each side of the box and each click strays by up to {jitter} pixels of a picture whose longest side is 1024. Of
volumes every slice that holds the target is prompted. A score compares answer and label on the stored grid: Dice of a
picture, or of a whole volume. The interval is a 95 % bootstrap of the mean that draws patients (`case`), not files.
"""

_STARTS = {
    "box": "a box around the target",
    "points": "a click at the pixel of the target that is farthest from its outline",
}

_TRIVIAL = {
    "none": (
        "Trivial: mean Dice of one constant mask, the mean training mask of set and target at 64x64 "
        "(of volumes 16 x 64x64), cut at the level that does best on the training files, stretched over the picture."
    ),
    "box": "Trivial: mean Dice of the ellipse that the very same box frames; the picture is not looked at.",
}

_MORE = (
    "Means over the files of a row, of HD95 the median. Surface Dice: share of both outlines that lies within "
    "{tolerance:g} {unit} of the other. Distances are in mm where the file tells its spacing, else in pixels of the "
    "stored file. Missed: files whose mask is empty though their label is not; they count as surface Dice 0 and as "
    "infinitely far (∞ where they are half of the files), and have no precision. Clear: share of the files without the "
    "target in whose mask no pixel bears it."
)


def results_page(summary: Mapping[str, Any]) -> str:
    """The whole page, as Markdown.

    Args:
        summary: content of `summary.json`.
    """
    parts = [f"# Results of {summary['model']['name']}", *origin_of(summary)]
    for section in results_sections(summary):
        parts += [f"## {section.heading}"] if section.heading else []
        parts += [markdown_table(table.titles, table.rows, table.align) for table in section.tables]
        parts += [section.note] if section.note else []
    return "\n\n".join([*parts, "## How it was measured", method_of(summary)])


def origin_of(summary: Mapping[str, Any]) -> tuple[str, str]:
    """How the numbers were made, and of which model."""
    made = summary["made"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    device = f"{made['device']} ({made['runtime']})" if "runtime" in made else made["device"]
    origin = (
        f"Made by `{made['command']}` on {made['date']}; not edited. Split `{made['split']}`, seed {made['seed']}, "
        f"device {device}, {made['threads']} threads on {made['cores']} cores ({made['machine']}). {versions}."
    )
    return origin, f"Model sha256: `{summary['model']['sha256']}`."


def method_of(summary: Mapping[str, Any]) -> str:
    """How a score is made."""
    robot, note = summary["made"].get("robot"), trivial_note(summary)
    method = _ROBOT_METHOD.format(**robot | {"start": _STARTS[robot["start"]]}) if robot else _METHOD
    return f"{method}{note}\n" if note else method


def trivial_note(summary: Mapping[str, Any]) -> str:
    """What the trivial answer is; empty where the summary has none."""
    if not _have([*summary["rows"], *summary.get("others", ())], "trivial"):
        return ""
    robot = summary["made"].get("robot")
    return _TRIVIAL["box" if robot and robot["start"] == "box" else "none"]


def results_sections(summary: Mapping[str, Any]) -> list[Section]:
    """Every table of an evaluation, in order; the scores that a release is judged by come first."""
    rows, others = summary["rows"], summary["others"]
    sections = [Section("", (_scores(rows),))] if rows else []
    sections += [Section("Other targets", (_others(others),))] if others else []
    sections += [_rounds(summary)] if "rounds" in summary else []
    sections += [_comparison(summary["comparison"])] if "comparison" in summary else []
    if _have(rows + others, "more"):
        tolerance = summary["made"]["tolerance"]
        note = _MORE.format(tolerance=tolerance, unit="mm or px")
        sections.append(Section("Overlap and outlines", (_more(rows + others),), note))
    return [*sections, cost_section(summary), calibration_section(summary["calibration"])]


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows that a release is judged by, with floor and aim, as Markdown."""
    table = _scores(rows)
    return markdown_table(table.titles, table.rows)


_SCORES = ("", "n", "patients", "mean", "95 %", "median", "10th pct.", "below .5")


def _scores(rows: Sequence[Mapping[str, Any]]) -> Table:
    trivial = _have(rows, "trivial")
    judged = any(row["floor"] is not None or row["aim"] is not None for row in rows)
    titles = _with_trivial(_SCORES, "trivial", show=trivial) + (("floor", "aim", "reached") if judged else ())
    return Table(titles, tuple(_score_cells(row, trivial=trivial, judged=judged) for row in rows))


def _score_cells(row: Mapping[str, Any], *, trivial: bool, judged: bool) -> tuple[str, ...]:
    score = row["score"]
    limits = tuple(_number(row[key], row) for key in ("floor", "aim"))
    shown = _number(row.get("trivial"), row)
    if score is None:
        cells, reached = (row["title"], "0", "0", *["–"] * 5), "–"
    else:
        mean, low, high = (_number(score[key], row) for key in ("mean", "low", "high"))
        spread = (
            ("–",) * 3
            if row["counts"] == "absent"
            else (_number(score["median"], row), _number(score["tenth"], row), f"{score['below_half']:.0%}")
        )
        counts = (str(score["n"]), str(score["groups"]))
        cells, reached = (row["title"], *counts, f"**{mean}**", f"{low} to {high}", *spread), _reached(row)
    return _with_trivial(cells, shown, show=trivial) + ((*limits, reached) if judged else ())


def _with_trivial(cells: tuple[str, ...], trivial: str, *, show: bool) -> tuple[str, ...]:
    """The cell stands behind the interval."""
    return (*cells[:5], trivial, *cells[5:]) if show else cells


def _have(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether a row has it; summaries of earlier versions do not."""
    return any(row.get(key) is not None for row in rows)


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


def _others(rows: Sequence[Mapping[str, Any]]) -> Table:
    trivial = _have(rows, "trivial")
    titles = (*_with_trivial(_SCORES, "trivial", show=trivial), "n without", "of these clear")
    cells = []
    for row in rows:
        absent = row["absent"]
        clear = "–" if absent["clear"] is None else f"{absent['clear']:.0%}"
        cells.append((*_score_cells(row, trivial=trivial, judged=False), str(absent["n"]), clear))
    return Table(titles, tuple(cells))


def _more(rows: Sequence[Mapping[str, Any]]) -> Table:
    titles = ("", "Dice sd", "IoU", "precision", "recall", "surface Dice", "HD95", "unit", "missed")
    cells = []
    for row in rows:
        more, absent = row.get("more"), row["absent"]
        if more is None:
            continue
        far = "∞" if more["missed"] else "–"
        means = (as_fraction(more[key]) for key in ("iou", "precision", "recall", "surface_dice"))
        hd95 = far if more["hd95"] is None else f"{more['hd95']:.1f}"
        spread = as_fraction(row["score"]["sd"])
        without = (str(absent["n"]), as_share(absent["clear"]))
        cells.append((row["title"], spread, *means, hd95, more["unit"], str(more["missed"]), *without))
    return Table((*titles, "n without", "clear"), tuple(cells))


def _rounds(summary: Mapping[str, Any]) -> Section:
    """Mean Dice after each round of a simulated user."""
    rounds, rows = summary["rounds"], [*summary["rows"], *summary["others"]]
    titles = ("mean Dice", *(r["prompt"] for r in rounds))
    cells = [
        (row["title"], *(as_fraction(r["rows"].get(row["title"], {}).get("mean")) for r in rounds))
        for row in rows
    ]
    cells.append(("median time of the decoder [ms]", *(as_whole(r["median_decode_ms"]) for r in rounds)))
    note = f"The other tables hold the last round: {rounds[-1]['prompt']}."
    return Section("Round by round", (Table(titles, tuple(cells)),), note)


def _comparison(rows: Sequence[Mapping[str, Any]]) -> Section:
    titles = ("", "n", "patients", "this", "other", "difference", "95 %", "better", "worse", "effect", "p")
    cells = tuple(
        (
            row["title"],
            str(row["n"]),
            str(row["groups"]),
            f"{row['first']:.3f}",
            f"{row['second']:.3f}",
            f"**{row['mean']:+.3f}**",
            f"{row['low']:+.3f} to {row['high']:+.3f}",
            str(row["better"]),
            str(row["worse"]),
            f"{row['effect']:+.2f}",
            f"{row['p_value']:.2g}",
        )
        for row in rows
    )
    note = (
        "Mean Dice of this evaluation and of the other one over the files of both; in rows of absent targets Dice is 1 "
        "where the target was left out. Better and worse: patients whose mean is higher or lower here. Effect: "
        "matched-pairs rank-biserial correlation, -1 to 1. p: two-sided Wilcoxon signed-rank test over patients, not "
        "corrected for the number of rows."
    )
    return Section("Compared with the other evaluation", (Table(titles, cells),), note)
