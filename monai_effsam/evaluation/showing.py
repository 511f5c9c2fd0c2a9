# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The report of an evaluation: which cases went worst, and what they look like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import draw_overlay, read_image, read_label
from monai_effsam.data.sets import Case
from monai_effsam.evaluation.scores import FileScore
from monai_effsam.evaluation.summary import rows_of, scores_of
from monai_effsam.reports.charts import Strip
from monai_effsam.reports.evaluation_page import evaluation_page
from monai_effsam.reports.page import Picture
from monai_effsam.targets import Target, own_target

__all__ = ["report_of", "worst_of"]

_SIDE = 448
_WHITE = (255, 255, 255)


def report_of(
    summary: Mapping[str, Any],
    scores: Sequence[FileScore],
    cases: Mapping[tuple[str, str], Case],
    table: Sequence[Target],
    out: Path,
    count: int,
) -> str:
    """The page `report.html`.

    Args:
        summary: content of `summary.json`.
        scores: one a target of a file.
        cases: by set and name of the image.
        table: the model's target table.
        out: output folder, which holds the masks.
        count: how many cases of a set are shown.

    Raises:
        DataError: an image, label or mask cannot be read.
    """
    judged, others = rows_of(scores)
    strips = [
        Strip(
            row.title, tuple((s.image, s.dice) for s in scores_of(row, scores)), _trivial(summary, row.title)
        )
        for row in (*judged, *others)
        if row.counts == "present"
    ]
    names = dict.fromkeys(s.set_name for s in scores)
    worst = {
        name: [
            _picture(score, cases[name, score.image], table, out)
            for score in worst_of((s for s in scores if s.set_name == name), count)
        ]
        for name in names
    }
    return evaluation_page(summary, [strip for strip in strips if strip.values], worst)


def worst_of(scores: Iterable[FileScore], count: int) -> list[FileScore]:
    """Those with the lowest Dice, the lowest first; of equals first those where most pixels are wrong.

    A target of which neither label nor answer holds a pixel is no case to show.
    """
    shown = [s for s in scores if s.label_px or s.mask_px]
    return sorted(shown, key=lambda s: (round(s.dice, 4), -max(s.label_px, s.mask_px), s.image))[:count]


def _trivial(summary: Mapping[str, Any], title: str) -> float | None:
    rows = (*summary["rows"], *summary["others"])
    return next((row["trivial"] for row in rows if row["title"] == title), None)


def _picture(score: FileScore, case: Case, table: Sequence[Target], out: Path) -> Picture:
    """A case as it was labelled beside how it was answered; of a volume the slice with most wrong pixels."""
    target = own_target(score.target, case.modality, table)
    value = next(v for v, name in case.values.items() if name == score.target)
    image = read_image(case.image, modality=case.modality)
    drawn = read_label(case.mask, image) == value
    answered = read_label(out / score.mask, image) == target.value
    index = int(np.count_nonzero(drawn != answered, axis=(1, 2)).argmax())
    rgb, label, answer = _sized(image.rgb(index), drawn[index], answered[index])
    colours = {1: target.colour}
    place = f", slice {index + 1} of {len(image)}" if len(image) > 1 else ""
    return Picture(
        title=f"{score.image}: {score.target.replace('_', ' ')}",
        group=score.set_name,
        facts=_facts(score) + place,
        image=draw_overlay(rgb, label.astype(np.uint8), colours),
        overlay=_outlined(draw_overlay(rgb, answer.astype(np.uint8), colours), label),
        captions=("label", "answer; the label outlined in white"),
    )


def _facts(score: FileScore) -> str:
    """The scores of a case in a line."""
    told = (
        [f"presence {score.presence:.2f}"] if score.prompt == "none" else []
    )  # who prompts says that it is there
    if not score.label_px:
        return ", ".join(["not in the label", f"{score.mask_px} px answered", *told])
    parts = [f"Dice {score.dice:.3f}"]
    if not score.mask_px:
        parts.append("nothing answered")
    elif math.isfinite(score.hd95):
        parts += [f"HD95 {score.hd95:.1f} {score.unit}", f"surface Dice {score.surface_dice:.2f}"]
    if not math.isnan(score.trivial):
        parts.append(f"trivial {score.trivial:.3f}")
    return ", ".join([*parts, *told, f"quality {score.quality:.2f}"])


def _sized(
    rgb: NDArray[np.uint8], *masks: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Picture and its two masks with the longest side as the report shows it."""
    height, width = rgb.shape[:2]
    factor = _SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    label, answer = (
        np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)) > 0
        for mask in masks
    )
    return np.asarray(cv2.resize(rgb, size, interpolation=how), np.uint8), label, answer


def _outlined(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture with the outline of a mask in white."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.ascontiguousarray(rgb), found, -1, _WHITE, 1), np.uint8)
