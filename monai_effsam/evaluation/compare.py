# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Two evaluations of the same files, row by row: the difference of their Dice, its interval and its test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_effsam.data.sets import read_table
from monai_effsam.errors import DataError
from monai_effsam.evaluation.rows import ScoreRow
from monai_effsam.evaluation.scores import FileScore
from monai_effsam.evaluation.summary import scores_of
from monai_effsam.metrics.statistics import paired_difference

__all__ = ["compare_rows", "read_scores"]

Key = tuple[str, str, str]

_COLUMNS = ("set_name", "image", "target", "dice")


def read_scores(path: Path) -> dict[Key, float]:
    """Dice by set, image and target of an `images.csv`; of several rounds of prompts the last.

    Raises:
        DataError: it cannot be read, or lacks columns or numbers.
    """
    rows = read_table(path, _COLUMNS)
    try:
        return {(row["set_name"], row["image"], row["target"]): float(row["dice"]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: is no table of scores ({error}), expected {', '.join(_COLUMNS)}. "
            "Give the images.csv of an evaluation."
        ) from error


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

    Raises:
        DataError: no file in common.
        MissingExtraError: scipy is not installed.
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
    if not found:
        raise DataError(
            "compare: the two evaluations have no file and target in common, expected the same sets and split. "
            "Compare evaluations of the same data."
        )
    return found
