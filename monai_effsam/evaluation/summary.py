# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Scores of files -> the numbers of the results table, as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from statistics import fmean, median
from typing import Any

from monai_effsam.evaluation.rows import ScoreRow, rows_for
from monai_effsam.evaluation.scores import FileScore
from monai_effsam.metrics.calibration import calibration_error, reliability
from monai_effsam.metrics.statistics import spread_of

__all__ = ["rows_of", "scores_of", "summarise"]

_MEANS = ("iou", "surface_dice", "precision", "recall")


def summarise(scores: Sequence[FileScore], *, seed: int = 0) -> dict[str, Any]:
    """Every number that the scores give.

    Of a simulated user the rows hold the last round, and `rounds` each.

    Args:
        scores: of any sets, in any order.
        seed: of the bootstrap.

    Returns:
        `rows` and `others` (see `rows_for`), `sets`, `calibration`, `reliability` and `time`; with prompts `rounds`.
    """
    prompts = tuple(dict.fromkeys(s.prompt for s in scores))
    last = [s for s in scores if s.prompt == prompts[-1]] if prompts else []
    sets: dict[str, list[FileScore]] = {}
    for score in last:
        sets.setdefault(score.set_name, []).append(score)
    judged, others = rows_of(last)
    pictures = [s.ms for s in _one_a_file(last) if s.slices == 1]
    summary: dict[str, Any] = {
        "rows": [_row(row, last, seed) for row in judged],
        "others": [_row(row, last, seed) for row in others],
        "sets": {name: _set_facts(own) for name, own in sets.items()},
        "calibration": {name: _calibration(own) for name, own in sets.items()},
        "reliability": _reliability(last),
        "time": {"pictures": len(pictures), "median_ms": round(median(pictures), 1) if pictures else None},
    }
    if any(prompt != "none" for prompt in prompts):
        summary["rounds"] = [_round([s for s in scores if s.prompt == p], p, seed) for p in prompts]
    return summary


def rows_of(scores: Sequence[FileScore]) -> tuple[list[ScoreRow], list[ScoreRow]]:
    """The rows that some scores can fill, see `rows_for`.

    With prompts there are no rows of absent targets, and what a release must reach does not apply.
    """
    sets: dict[str, dict[str, None]] = {}
    for score in scores:
        sets.setdefault(score.set_name, {})[score.target] = None
    judged, others = rows_for({name: tuple(targets) for name, targets in sets.items()})
    if any(score.prompt != "none" for score in scores):
        judged = [replace(row, floor=None, aim=None) for row in judged if row.counts == "present"]
    return judged, others


def scores_of(row: ScoreRow, scores: Sequence[FileScore]) -> list[FileScore]:
    """The scores that a row is made of."""
    return [
        s
        for s in scores
        if s.set_name == row.set_name
        and s.target in row.targets
        and (s.label_px == 0) == (row.counts == "absent")
    ]


def _row(row: ScoreRow, scores: Sequence[FileScore], seed: int) -> dict[str, Any]:
    own = scores_of(row, scores)
    absent = scores_of(replace(row, counts="absent"), scores)
    clear = [float(not s.mask_px) for s in absent]
    values = clear if row.counts == "absent" else [s.dice for s in own]
    spread = spread_of(values, [s.group for s in own], seed=seed)
    return {
        "title": row.title,
        "set": row.set_name,
        "targets": list(row.targets),
        "counts": row.counts,
        "floor": row.floor,
        "aim": row.aim,
        "score": spread.to_json() if spread else None,
        "trivial": _mean(own, lambda s: s.trivial),
        "more": _more(own) if row.counts == "present" and own else None,
        "absent": {"n": len(absent), "clear": round(sum(clear) / len(clear), 4) if clear else None},
    }


def _more(own: Sequence[FileScore]) -> dict[str, Any]:
    """What else the files of a row give: means over those where a number is defined, of HD95 the median.

    A mask that is empty though the label is not lies infinitely far off: `missed` counts those, and the median is
    None where they are half of the files or more.
    """
    far = [s.hd95 for s in own if not math.isnan(s.hd95)]
    middle = median(far) if far else math.inf
    units = {s.unit for s in own}
    return {
        **{name: _mean(own, attrgetter(name)) for name in _MEANS},
        "hd95": round(middle, 2) if math.isfinite(middle) else None,
        "unit": units.pop() if len(units) == 1 else "mm or px",
        "missed": sum(math.isinf(value) for value in far),
    }


def _mean(scores: Sequence[FileScore], value: Callable[[FileScore], float]) -> float | None:
    """Of the scores for which it is defined."""
    defined = [v for v in map(value, scores) if not math.isnan(v)]
    return round(fmean(defined), 4) if defined else None


def _round(scores: Sequence[FileScore], prompt: str, seed: int) -> dict[str, Any]:
    """Mean Dice of each row after one round of prompts."""
    judged, others = rows_of(scores)
    means = {}
    for row in (*judged, *others):
        own = scores_of(row, scores)
        spread = spread_of([s.dice for s in own], [s.group for s in own], seed=seed)
        if spread:
            means[row.title] = {k: round(getattr(spread, k), 4) for k in ("mean", "low", "high")}
    decode = median(s.stages["decode"] for s in scores)
    return {"prompt": prompt, "rows": means, "median_decode_ms": round(decode, 1)}


def _one_a_file(scores: Sequence[FileScore]) -> list[FileScore]:
    return list({(s.set_name, s.image): s for s in scores}.values())


def _set_facts(scores: Sequence[FileScore]) -> dict[str, Any]:
    files = _one_a_file(scores)
    stages = dict.fromkeys(stage for s in files for stage in s.stages)
    return {
        "files": len(files),
        "slices": sum(s.slices for s in files),
        "groups": len({s.group for s in files}),
        "files_with_foreign_targets": sum(s.foreign_px > 0 for s in files),
        "median_ms": round(median(s.ms for s in files), 1),
        "median_stages_ms": {
            stage: round(median(s.stages.get(stage, 0.0) for s in files), 1) for stage in stages
        },
    }


def _calibration(scores: Sequence[FileScore]) -> dict[str, Any]:
    """Of single pictures: a volume's presence is the largest of its slices, its quality a mean."""
    told, masks = _told(scores)
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
        facts["quality_calibration_error"] = round(calibration_error(*zip(*masks, strict=True)), 4)
    return facts


def _reliability(scores: Sequence[FileScore]) -> dict[str, list[dict[str, Any]]]:
    """Bins of what was said against what was so, over the pictures of all sets."""
    told, masks = _told(scores)
    return {
        name: [b.to_json() for b in reliability([a for a, _ in pairs], [float(b) for _, b in pairs])]
        for name, pairs in (("presence", told), ("quality", masks))
        if pairs
    }


def _told(scores: Sequence[FileScore]) -> tuple[list[tuple[float, bool]], list[tuple[float, float]]]:
    """(presence, whether it is there) of every answer, (quality, IoU) of every mask, of single pictures.

    With prompts no presence: who prompts says that the target is there.
    """
    pictures = [s for s in scores if s.slices == 1]
    return (
        [(s.presence, s.label_px > 0) for s in pictures if s.prompt == "none"],
        [(s.quality, s.iou) for s in pictures if s.mask_px],
    )
