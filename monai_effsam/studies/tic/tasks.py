# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The tasks of the comparison: pictures and classes, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_effsam.data.io import read_image
from monai_effsam.data.routing.pictures import kept_size
from monai_effsam.data.sets import Case, read_set, read_sets
from monai_effsam.errors import DataError

__all__ = ["LEAST_AREA", "TASKS", "StudyTask", "read_task"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class StudyTask:
    """Pictures of some classes.

    Args:
        name: of the task.
        classes: names.
        train: for each class its pictures (H, W, 3), no larger than the training crops need.
        val: pictures (H, W, 3) as they are stored.
        target: class number of each picture of `val`.
        least_area: share of a picture that every view of the training shows, at least.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[tuple[Pixels, ...], ...]
    val: tuple[Pixels, ...]
    target: tuple[int, ...]
    least_area: float = 0.5


def _breast(data: Path) -> list[tuple[Case, str]]:
    return [(case, case.label_class) for case in read_set(data / "busi")]


def _modality(data: Path) -> list[tuple[Case, str]]:
    return [(case, case.modality) for case in read_sets(data)]


TASKS: Mapping[str, Callable[[Path], list[tuple[Case, str]]]] = {
    "breast": _breast,
    "modality": _modality,
    "modality-zoom": _modality,
}
"""Name -> reads the cases of a folder of sets, each with its class."""

LEAST_AREA = {"modality-zoom": 0.08}
"""Share of a picture that a view shows at least, where it is not a half: things come up to 3.5 times larger."""


def read_task(name: str, data: Path, most: int | None = None) -> StudyTask:
    """Read a task; of a volume its middle slice.

    Args:
        name: in `TASKS`.
        data: folder of sets with `targets.csv`.
        most: pictures of a class in `val`; where there are more, some are drawn, always the same. None for all.

    Raises:
        DataError: a set cannot be read, or a class has no picture of either split.
    """
    cases = TASKS[name](data)
    classes = tuple(sorted({label for _, label in cases}))
    train, val, target = [], [], []
    for number, label in enumerate(classes):
        own = [case for case, of in cases if of == label]
        taught, asked = ([c for c in own if (c.split == "train") == part] for part in (True, False))
        if not taught or not asked:
            raise DataError(
                f"{data}: task '{name}' has {len(taught)} pictures of {label} to train on and {len(asked)} to test on,"
                " expected some of both. Check splits.csv."
            )
        train.append(tuple(kept_size(_picture(case)) for case in taught))
        asked = _some(asked, most)
        val += [_picture(case) for case in asked]
        target += [number] * len(asked)
    return StudyTask(name, classes, tuple(train), tuple(val), tuple(target), LEAST_AREA.get(name, 0.5))


def _picture(case: Case) -> Pixels:
    image = read_image(case.image, modality=case.modality)
    return image.rgb(len(image) // 2)


def _some(cases: Sequence[Case], most: int | None) -> list[Case]:
    if most is None or len(cases) <= most:
        return list(cases)
    return [cases[i] for i in sorted(np.random.RandomState(0).permutation(len(cases))[:most])]
