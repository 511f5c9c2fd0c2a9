# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What stands beside the scores of an evaluation: time, memory, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_effsam.reports.table_form import Section, Table, as_fraction, as_share, as_whole

__all__ = ["calibration_section", "cost_section"]

_OVERLAP = (
    "Reading, network and writing overlap: the median is the sum of a file's stages, the wall time that of the "
    "folder run divided by its files. Foreign: files in which a target that the set does not label was outlined."
)
_PROMPTED = (
    "Stages are not overlapped, and nothing is drawn; of the decoder the time of the last round, all slices."
)

_PRESENCE_TITLES = ("answers", "of these present", "presence right", "its error")
_PRESENCE_NOTE = (
    "Presence is right if it is at least 0.5 just where the label holds the target; its error is the expected "
    "calibration error in ten bins. "
)


def cost_section(summary: Mapping[str, Any]) -> Section:
    """Time and memory; beside their limits where the whole way from file to overlay was timed."""
    time, memory = summary["time"]["median_ms"], summary["peak_mb"]
    if summary["made"].get("robot"):
        rows = (
            ("median time a picture, reading, encoder and decoder [ms]", as_whole(time)),
            ("peak memory of the process, scoring included [MB]", as_whole(memory)),
        )
        return Section("Time and memory", (Table(("", "measured"), rows), _sets(summary["sets"])), _PROMPTED)
    limits = {key: tuple(as_whole(v) for v in values) for key, values in summary["limits"].items()}
    cells = (
        ("median time a picture, file to overlay [ms]", as_whole(time), *limits["median_ms"]),
        ("peak memory of the process [MB]", as_whole(memory), *limits["peak_mb"]),
    )
    tables = (Table(("", "measured", "at most", "aim"), cells), _sets(summary["sets"]))
    return Section("Time and memory", tables, _OVERLAP)


def _sets(sets: Mapping[str, Mapping[str, Any]]) -> Table:
    titles = {
        "files": "files",
        "slices": "slices",
        "groups": "patients",
        "median_ms": "median ms a file",
        "wall_ms_a_file": "wall ms a file",
        "files_with_foreign_targets": "foreign",
    }
    timed = any("wall_ms_a_file" in facts for facts in sets.values())
    keys = [key for key in titles if timed or key not in ("wall_ms_a_file", "files_with_foreign_targets")]
    rows = tuple((name, *(as_whole(facts.get(key)) for key in keys)) for name, facts in sets.items())
    return Table(("set", *(titles[key] for key in keys)), rows)


def calibration_section(sets: Mapping[str, Mapping[str, Any]]) -> Section:
    """How well presence and quality are told, set by set; no word of presence where none is told."""
    shown = {name: facts for name, facts in sets.items() if facts["told"] or facts["masks"]}
    told = any(facts["told"] for facts in shown.values())
    heading = "Presence and quality" if told else "Quality"
    if not shown:
        return Section(heading, (), "No single pictures.")
    binned = any("quality_calibration_error" in facts for facts in shown.values())
    titles = ("set", *_PRESENCE_TITLES) if told else ("set",)
    titles += ("masks", "quality off by", "bias", *(("its error",) if binned else ()))
    rows = tuple(
        (
            name,
            *(_presence_cells(facts) if told else ()),
            str(facts["masks"]),
            as_fraction(facts.get("quality_error")),
            as_fraction(facts.get("quality_bias")),
            *((as_fraction(facts.get("quality_calibration_error")),) if binned else ()),
        )
        for name, facts in shown.items()
    )
    ending = (
        ("same expected error as presence" if told else "expected calibration error in ten bins")
        if binned
        else ""
    )
    note = (
        f"Single pictures only, over the targets that a set labels. {_PRESENCE_NOTE if told else ''}Quality is "
        "compared with the true IoU of masks that are not empty: mean distance, and mean of estimate minus truth"
        + (f", and the {ending}." if ending else ".")
    )
    return Section(heading, (Table(titles, rows),), note)


def _presence_cells(facts: Mapping[str, Any]) -> tuple[str, ...]:
    right, error = as_share(facts.get("presence_right")), as_fraction(facts.get("presence_error"))
    return str(facts["told"]), str(facts["present"]), right, error
