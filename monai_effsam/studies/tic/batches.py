# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Batches that every network of a comparison sees alike: each a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_effsam.data.placement import apply_spec
from monai_effsam.data.routing.batches import ClassBatch
from monai_effsam.specs import ImageSpec
from monai_effsam.studies.tic.tasks import StudyTask

__all__ = ["SPEC", "StudyBatches", "study_view", "val_images"]

Pixels = npt.NDArray[np.uint8]

SPEC = ImageSpec(128, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
"""How every network gets its images; the size is the training's."""

_ASPECT, _GAMMA, _GAIN, _OFFSET = 4 / 3, 1.4, 0.25, 0.1


class StudyBatches:
    """The batches of one run: classes in equal shares, of each class any picture, of each picture another view.

    Args:
        task: gives pictures.
        side: of the views [px].
        batch: views a step.
        steps: in all.
        seed: of everything random here.
    """

    def __init__(self, task: StudyTask, side: int, batch: int, steps: int, seed: int) -> None:
        self.task, self.spec = task, replace(SPEC, size=side)
        self.views, self.steps, self.seed = batch, steps, seed

    def __len__(self) -> int:
        """Steps."""
        return self.steps

    def __iter__(self) -> Iterator[ClassBatch]:
        """All batches, from the first step on."""
        return map(self.batch, range(self.steps))

    def batch(self, step: int) -> ClassBatch:
        """The batch of one step."""
        random = np.random.RandomState([self.seed, step])
        images, target = [], []
        for _ in range(self.views):
            number = random.randint(len(self.task.classes))
            pictures = self.task.train[number]
            picture = pictures[random.randint(len(pictures))]
            view = study_view(picture, random, self.spec.size, self.task.least_area)
            images.append(apply_spec(view, self.spec)[0])
            target.append(number)
        return ClassBatch(torch.from_numpy(np.stack(images)), torch.tensor(target))


def study_view(image: Pixels, random: np.random.RandomState, side: int, least_area: float = 0.5) -> Pixels:
    """A part of a picture, mirrored half of the time, in another tone: (H, W, 3) -> (side, side, 3), uint8."""
    height, width = image.shape[:2]
    share = random.uniform(least_area, 1) ** 0.5
    stretch = _ASPECT ** random.uniform(-0.5, 0.5)
    rows, columns = (
        max(1, round(n * min(1.0, share * f))) for n, f in ((height, stretch), (width, 1 / stretch))
    )
    top, left = random.randint(height - rows + 1), random.randint(width - columns + 1)
    part = image[top : top + rows, left : left + columns]
    part = part[:, ::-1] if random.rand() < 0.5 else part
    shrinks = rows >= side and columns >= side
    sized = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    level = np.linspace(0, 1, 256) ** _GAMMA ** random.uniform(-1, 1)
    level = (level - 0.5) * (1 + random.uniform(-_GAIN, _GAIN)) + 0.5 + random.uniform(-_OFFSET, _OFFSET)
    return np.asarray(cv2.LUT(sized, np.clip(level * 255 + 0.5, 0, 255).astype(np.uint8)), np.uint8)


def val_images(task: StudyTask, side: int) -> Tensor:
    """The pictures of `val` whole, stretched to squares of a side [px]: (N, 3, side, side)."""
    spec = replace(SPEC, size=side)
    return torch.from_numpy(np.stack([apply_spec(picture, spec)[0] for picture in task.val]))
