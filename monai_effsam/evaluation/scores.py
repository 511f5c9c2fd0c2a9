# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One answer against its label: every number that one target of one file gives."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Image, read_image, read_label
from monai_effsam.data.sets import Case
from monai_effsam.evaluation.trivial import ConstantMask
from monai_effsam.metrics.overlap import dice_score, iou_score, precision_score, recall_score
from monai_effsam.metrics.surface import SurfaceScore, surface_score
from monai_effsam.targets import Target, find_targets, targets_of

__all__ = ["Answer", "FileScore", "score_answer", "score_file", "scores_csv"]


@dataclass(frozen=True, slots=True)
class FileScore:
    """One target of one file; a line of `images.csv`.

    Args:
        set_name: the set.
        image: path of the image below its set's folder, or below the folder that the set's images share.
        group: patient or sequence.
        label_class: free class of the set, may be empty.
        target: its name.
        prompt: what was prompted: `none`, or a round of `evaluation.robot.RobotUser`.
        slices: of the file; 1 for a picture.
        label_px: pixels of the label, of all slices.
        mask_px: pixels of the answer.
        dice: of the whole file; 1 if both are empty, 0 if one is.
        iou: likewise.
        precision: share of the answer that is right; NaN if there is none.
        recall: share of the label that was found; NaN if there is none.
        hd95: 95th percentile Hausdorff distance in `unit`; NaN if both are empty, infinite if one is.
        surface_dice: share of both outlines within the tolerance of the other; NaN if both are empty, 0 if one is.
            Both distances are NaN for stacks of pages or frames, which have no third axis to measure along.
        unit: `mm` where the spacing of the file is known, else `px`.
        trivial: Dice of the answer that needs no look at the picture (`evaluation.trivial`); NaN if there is none.
        presence: probability that the target is there, as told.
        quality: estimate of IoU, as told.
        foreign_px: pixels that bear a target which the set does not label, the same for all targets of a file.
        ms: from file to overlay, the sum over its stages [ms].
        stages: the same, stage by stage; not in `images.csv`.
        mask: the answer's file, below the output folder.
    """

    set_name: str
    image: str
    group: str
    label_class: str
    target: str
    prompt: str
    slices: int
    label_px: int
    mask_px: int
    dice: float
    iou: float
    precision: float
    recall: float
    hd95: float
    surface_dice: float
    unit: str
    trivial: float
    presence: float
    quality: float
    foreign_px: int
    ms: float
    stages: Mapping[str, float] = field(hash=False)
    mask: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered for one target of a file, and what is known about it.

    Args:
        mask: (N, H, W) bool.
        presence: as told, 0..1.
        quality: as told, 0..1.
        stages: time of each stage [ms].
        prompt: what was prompted.
        trivial: (N, H, W) bool, the answer that needs no look at the picture, or None.
        foreign_px: pixels of targets that the set does not label.
        file: where the mask was written, below the output folder.
    """

    mask: NDArray[np.bool_]
    presence: float
    quality: float
    stages: Mapping[str, float]
    prompt: str = "none"
    trivial: NDArray[np.bool_] | None = None
    foreign_px: int = 0
    file: str = ""


def score_answer(
    case: Case,
    name: str,
    image: Image,
    target: str,
    drawn: NDArray[np.bool_],
    answer: Answer,
    tolerance: float,
) -> FileScore:
    """Every number of one answer.

    Args:
        case: what set and patient it belongs to.
        name: of the image, in tables.
        image: as read; its spacing is that of the distances.
        target: its name.
        drawn: (N, H, W) bool, the label.
        answer: what was answered.
        tolerance: of surface Dice [mm, or px where the spacing is unknown].
    """
    unit, surface = _surface(image, answer.mask, drawn, tolerance)
    return FileScore(
        set_name=case.set_name,
        image=name,
        group=case.group,
        label_class=case.label_class,
        target=target,
        prompt=answer.prompt,
        slices=len(image),
        label_px=int(np.count_nonzero(drawn)),
        mask_px=int(np.count_nonzero(answer.mask)),
        dice=dice_score(answer.mask, drawn),
        iou=iou_score(answer.mask, drawn),
        precision=precision_score(answer.mask, drawn),
        recall=recall_score(answer.mask, drawn),
        hd95=surface.hd95,
        surface_dice=surface.surface_dice,
        unit=unit,
        trivial=math.nan if answer.trivial is None else dice_score(answer.trivial, drawn),
        presence=answer.presence,
        quality=answer.quality,
        foreign_px=answer.foreign_px,
        ms=sum(answer.stages.values()),
        stages=answer.stages,
        mask=answer.file,
    )


def score_file(
    case: Case,
    name: str,
    record: Mapping[str, Any],
    out: Path,
    table: Sequence[Target],
    constants: Mapping[str, ConstantMask],
    *,
    tolerance: float = 2.0,
) -> list[FileScore]:
    """Scores of every target that the case's set labels, of a mask that `effsam segment` wrote.

    Args:
        case: image and label.
        name: of the image, in tables.
        record: the image's line of `results.jsonl`, without an error.
        out: output folder; the record's mask is in its folder of the case's set.
        table: the model's target table.
        constants: the set's constant masks, by target.
        tolerance: of surface Dice [mm or px].

    Raises:
        DataError: image, label or mask cannot be read, or differ in size.
        UsageError: the table lacks a target of the set.
    """
    wanted = find_targets(case.values.values(), case.modality, table)
    image = read_image(case.image, modality=case.modality)
    label = read_label(case.mask, image)
    file = f"{case.set_name}/{record['mask']}"
    mask = read_label(out / file, image)
    told = {entry["name"]: entry for entry in record["targets"]}
    foreign = _foreign(mask, case, table, wanted)
    scores = []
    for value, target in zip(case.values, wanted, strict=True):
        constant = constants.get(target.name)
        answer = Answer(
            mask=mask == target.value,
            presence=told[target.name]["presence"],
            quality=told[target.name]["quality"],
            stages=record["ms"],
            trivial=constant.like(label.shape) if constant else None,
            foreign_px=foreign,
            file=file,
        )
        scores.append(score_answer(case, name, image, target.name, label == value, answer, tolerance))
    return scores


def scores_csv(scores: Iterable[FileScore]) -> str:
    """The scores as a table, floats with four decimals, `inf` for infinite ones, nothing for what is not defined."""
    text = io.StringIO()
    names = [f.name for f in fields(FileScore) if f.name != "stages"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(getattr(score, name)) for name in names] for score in scores)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else round(value, 4)


def _surface(
    image: Image, mask: NDArray[np.bool_], drawn: NDArray[np.bool_], tolerance: float
) -> tuple[str, SurfaceScore]:
    """Unit and distances; a slice in its plane, a volume in space."""
    step, spacing = image.slice_step_mm, image.spacing_mm
    if len(image) == 1:
        score = surface_score(mask[0], drawn[0], spacing=spacing, tolerance=tolerance)
    elif image.is_volume:
        known = None if spacing is None or step is None else (step, *spacing)
        spacing = None if known is None else spacing
        score = surface_score(mask, drawn, spacing=known, tolerance=tolerance)
    else:
        score = SurfaceScore(math.nan, math.nan)
    return ("px" if spacing is None else "mm"), score


def _foreign(mask: NDArray[np.uint8], case: Case, table: Sequence[Target], wanted: Sequence[Target]) -> int:
    values = [t.value for t in targets_of(case.modality, table) if t not in wanted]
    return int(np.count_nonzero(np.isin(mask, values)))
