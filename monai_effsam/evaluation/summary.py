# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Scores of files -> the numbers of the results table, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from monai_effsam.evaluation.rows import ScoreRow, rows_for
from monai_effsam.evaluation.scores import FileScore
from monai_effsam.metrics.calibration import calibration_error
from monai_effsam.metrics.statistics import spread_of

__all__ = ["summarise"]


def summarise(scores: Sequence[FileScore], *, seed: int = 0) -> dict[str, Any]:
    """Every number that the scores give.

    Args:
        scores: of any sets, in any order.
        seed: of the bootstrap.

    Returns:
        `rows` and `others` (see `rows_for`), `sets`, `calibration` and `time`.
    """
    sets: dict[str, list[FileScore]] = {}
    for score in scores:
        sets.setdefault(score.set_name, []).append(score)
    targets = {name: tuple(dict.fromkeys(s.target for s in own)) for name, own in sets.items()}
    judged, others = rows_for(targets)
    pictures = [s.ms for s in _one_a_file(scores) if s.slices == 1]
    return {
        "rows": [_row(row, sets[row.set_name], seed) for row in judged],
        "others": [_row(row, sets[row.set_name], seed) for row in others],
        "sets": {name: _set_facts(own) for name, own in sets.items()},
        "calibration": {name: _calibration(own) for name, own in sets.items()},
        "time": {"pictures": len(pictures), "median_ms": round(median(pictures), 1) if pictures else None},
    }


def _row(row: ScoreRow, scores: Sequence[FileScore], seed: int) -> dict[str, Any]:
    own = [s for s in scores if s.target in row.targets]
    present, absent = [s for s in own if s.label_px], [s for s in own if not s.label_px]
    clear = [float(not s.mask_px) for s in absent]
    if row.counts == "absent":
        spread = spread_of(clear, [s.group for s in absent], seed=seed)
    else:
        spread = spread_of([s.dice for s in present], [s.group for s in present], seed=seed)
    return {
        "title": row.title,
        "set": row.set_name,
        "targets": list(row.targets),
        "counts": row.counts,
        "floor": row.floor,
        "aim": row.aim,
        "score": spread.to_json() if spread else None,
        "absent": {"n": len(absent), "clear": round(sum(clear) / len(clear), 4) if clear else None},
    }


def _one_a_file(scores: Sequence[FileScore]) -> list[FileScore]:
    return list({(s.set_name, s.image): s for s in scores}.values())


def _set_facts(scores: Sequence[FileScore]) -> dict[str, Any]:
    files = _one_a_file(scores)
    return {
        "files": len(files),
        "slices": sum(s.slices for s in files),
        "groups": len({s.group for s in files}),
        "files_with_foreign_targets": sum(s.foreign_px > 0 for s in files),
        "median_ms": round(median(s.ms for s in files), 1),
    }


def _calibration(scores: Sequence[FileScore]) -> dict[str, Any]:
    """Of single pictures: a volume's presence is the largest of its slices, its quality a mean."""
    told = [(s.presence, s.label_px > 0) for s in scores if s.slices == 1]
    masks = [(s.quality, s.iou) for s in scores if s.slices == 1 and s.mask_px]
    facts: dict[str, Any] = {
        "present": sum(truth for _, truth in told),
        "told": len(told),
        "masks": len(masks),
    }
    if told:
        facts["presence_error"] = round(calibration_error([p for p, _ in told], [t for _, t in told]), 4)
        facts["presence_right"] = round(sum((p >= 0.5) == t for p, t in told) / len(told), 4)
    if masks:
        facts["quality_error"] = round(sum(abs(q - iou) for q, iou in masks) / len(masks), 4)
        facts["quality_bias"] = round(sum(q - iou for q, iou in masks) / len(masks), 4)
    return facts
