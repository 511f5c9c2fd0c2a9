# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The rows of the results table: which files of which set make a number, and what is expected of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["LIMITS", "ROWS", "ScoreRow", "rows_for"]


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One number of the table.

    Args:
        title: what stands in the table.
        set_name: the set it is measured on.
        targets: their scores are pooled.
        counts: `present`: Dice of the files (slices, volumes) whose label holds the target; `absent`: of those
            whose label does not, the share in whose mask no pixel bears it ("nothing here").
        floor: the least that a release may show.
        aim: what it should show.
    """

    title: str
    set_name: str
    targets: tuple[str, ...]
    counts: Literal["present", "absent"] = "present"
    floor: float | None = None
    aim: float | None = None


ROWS: tuple[ScoreRow, ...] = (
    ScoreRow("Kvasir polyps", "kvasir_seg", ("polyp",), floor=0.86, aim=0.91),
    ScoreRow("ISIC lesion", "isic2018", ("skin_lesion",), floor=0.87, aim=0.91),
    ScoreRow("chest X-ray lungs", "chest_xray", ("lungs",), floor=0.91, aim=0.96),
    ScoreRow("fetal head", "hc18", ("fetal_head",), floor=0.96, aim=0.977),
    ScoreRow("breast lesion, images with one", "busi", ("breast_lesion",), floor=0.68, aim=0.80),
    ScoreRow("breast, normal answered “nothing here”", "busi", ("breast_lesion",), "absent", 0.70, 0.90),
    ScoreRow("retinal vessels", "drive", ("retinal_vessels",), floor=0.60, aim=0.80),
    ScoreRow("ACDC right ventricle", "acdc", ("right_ventricle",), floor=0.75, aim=0.89),
    ScoreRow("ACDC myocardium", "acdc", ("myocardium",), floor=0.75, aim=0.86),
    ScoreRow("ACDC left ventricle", "acdc", ("left_ventricle",), floor=0.85, aim=0.94),
    ScoreRow("BTCV liver", "btcv_ct", ("liver",), floor=0.80, aim=0.94),
    ScoreRow("BTCV spleen", "btcv_ct", ("spleen",), floor=0.75, aim=0.93),
    ScoreRow("BTCV kidneys", "btcv_ct", ("kidney_right", "kidney_left"), floor=0.75, aim=0.92),
    ScoreRow("hippocampus anterior, volumes", "hippocampus", ("hippocampus_anterior",), floor=0.75, aim=0.89),
    ScoreRow(
        "hippocampus posterior, volumes", "hippocampus", ("hippocampus_posterior",), floor=0.75, aim=0.88
    ),
)
"""The rows that a release is judged by."""

LIMITS: Mapping[str, tuple[float, float | None]] = {"median_ms": (400.0, 150.0), "peak_mb": (1200.0, None)}
"""Ceiling and aim of the time a picture, file to overlay [ms], and of the process's peak memory [MB]."""


def rows_for(targets: Mapping[str, Sequence[str]]) -> tuple[list[ScoreRow], list[ScoreRow]]:
    """The rows that some sets can fill: those a release is judged by, and one each for all their other targets.

    Args:
        targets: for each set, the names of its targets.
    """
    judged = [row for row in ROWS if set(row.targets) <= set(targets.get(row.set_name, ()))]
    covered = {(row.set_name, target) for row in judged for target in row.targets}
    others = [
        ScoreRow(f"{name}: {target}", name, (target,))
        for name, own in targets.items()
        for target in own
        if (name, target) not in covered
    ]
    return judged, others
