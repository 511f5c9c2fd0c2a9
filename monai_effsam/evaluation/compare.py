# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Two evaluations of the same files, row by row: the difference of their Dice, its interval and its test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_effsam.data.sets import Case, read_table
from monai_effsam.errors import DataError
from monai_effsam.evaluation.rows import ScoreRow
from monai_effsam.evaluation.scores import FileScore
from monai_effsam.evaluation.summary import scores_of
from monai_effsam.metrics.statistics import paired_difference

__all__ = ["check_common", "compare_rows", "read_scores"]

Key = tuple[str, str, str]

_COLUMNS = ("set_name", "image", "target", "dice")


def read_scores(path: Path) -> dict[Key, float]:
    """Dice by set, image and target of another evaluation; of several rounds of prompts the last.

    Args:
        path: its `images.csv`, its `summary.json` (of which the neighbour is read), or the folder of both.

    Raises:
        DataError: it cannot be read, or lacks columns or numbers.
    """
    if path.is_dir() or path.suffix == ".json":
        path = (path if path.is_dir() else path.parent) / "images.csv"
    rows = read_table(path, _COLUMNS)
    try:
        return {(row["set_name"], row["image"], row["target"]): float(row["dice"]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: is no table of scores ({error}), expected {', '.join(_COLUMNS)}. "
            "Give the images.csv of an evaluation."
        ) from error


def check_common(others: Mapping[Key, float], sets: Mapping[str, Mapping[str, Case]]) -> None:
    """Refuse an evaluation that has nothing to do with these cases, before anything is segmented.

    Args:
        others: from `read_scores`.
        sets: cases by set and name of the image.

    Raises:
        DataError: no file and target in common.
    """
    ours = (
        (name, image, target)
        for name, cases in sets.items()
        for image, case in cases.items()
        for target in case.values.values()
    )
    if not any(key in others for key in ours):
        raise DataError(
            "compare: the two evaluations have no file and target in common, expected the same sets and split. "
            "Compare evaluations of the same data."
        )


def compare_rows(
    rows: Sequence[ScoreRow], scores: Sequence[FileScore], others: Mapping[Key, float], *, seed: int = 0
) -> list[dict[str, Any]]:
    """This evaluation minus another one, for each row, over the files that both have.

    Args:
        rows: of the results table.
        scores: of this evaluation, one a target of a file.
        others: from `read_scores`.
        seed: of the bootstrap.

    Returns:
        `title` and what `PairedDifference` says; rows without a file in common are left out. In rows of absent
        targets Dice is 1 where both left the target out, as it should be.
    """
    found = []
    for row in rows:
        pairs = [
            (score, others[key])
            for score in scores_of(row, scores)
            if (key := (score.set_name, score.image, score.target)) in others
        ]
        if not pairs:
            continue
        own = [round(score.dice, 4) for score, _ in pairs]  # as the table of the other side holds them
        other = [value for _, value in pairs]
        difference = paired_difference(own, other, [score.group for score, _ in pairs], seed=seed)
        found.append({"title": row.title, **difference.to_json()})
    return found
