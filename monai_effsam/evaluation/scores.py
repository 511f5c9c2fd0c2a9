# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One file's mask against its label, target by target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import read_image, read_label
from monai_effsam.data.sets import Case
from monai_effsam.metrics.overlap import dice_score, iou_score
from monai_effsam.targets import Target, find_targets, targets_of

__all__ = ["FileScore", "score_file"]


@dataclass(frozen=True, slots=True)
class FileScore:
    """One target of one file; a line of `images.csv`.

    Args:
        set_name: the set.
        image: path of the image within its set's folder.
        group: patient or sequence.
        label_class: free class of the set, may be empty.
        target: its name.
        slices: of the file; 1 for a picture.
        label_px: pixels of the label, of all slices.
        mask_px: pixels of the answer.
        dice: of the whole file; 1 if both are empty.
        iou: likewise.
        presence: probability that the target is there, as told.
        quality: estimate of IoU, as told.
        foreign_px: pixels that bear a target which the set does not label, the same for all targets of a file.
        ms: from file to overlay, the sum over its stages [ms].
    """

    set_name: str
    image: str
    group: str
    label_class: str
    target: str
    slices: int
    label_px: int
    mask_px: int
    dice: float
    iou: float
    presence: float
    quality: float
    foreign_px: int
    ms: float


def score_file(
    case: Case, record: Mapping[str, Any], folder: Path, table: Sequence[Target]
) -> list[FileScore]:
    """Scores of every target that the case's set labels.

    Args:
        case: image and label.
        record: the image's line of `results.jsonl`, without an error.
        folder: where the record's mask is.
        table: the model's target table.

    Raises:
        DataError: image, label or mask cannot be read, or differ in size.
        UsageError: the table lacks a target of the set.
    """
    wanted = find_targets(case.values.values(), case.modality, table)
    image = read_image(case.image, modality=case.modality)
    label = read_label(case.mask, image)
    mask = read_label(folder / record["mask"], image)
    told = {entry["name"]: entry for entry in record["targets"]}
    scores = []
    for value, target in zip(case.values, wanted, strict=True):
        drawn, answered = label == value, mask == target.value
        scores.append(
            FileScore(
                set_name=case.set_name,
                image=f"{case.image.parent.name}/{case.image.name}",
                group=case.group,
                label_class=case.label_class,
                target=target.name,
                slices=len(image),
                label_px=int(np.count_nonzero(drawn)),
                mask_px=int(np.count_nonzero(answered)),
                dice=dice_score(answered, drawn),
                iou=iou_score(answered, drawn),
                presence=told[target.name]["presence"],
                quality=told[target.name]["quality"],
                foreign_px=_foreign(mask, case, table, wanted),
                ms=sum(record["ms"].values()),
            )
        )
    return scores


def _foreign(mask: NDArray[np.uint8], case: Case, table: Sequence[Target], wanted: Sequence[Target]) -> int:
    values = [t.value for t in targets_of(case.modality, table) if t not in wanted]
    return int(np.count_nonzero(np.isin(mask, values)))
