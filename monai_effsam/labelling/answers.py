# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What the service answers, before it is written as a file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Image
from monai_effsam.inference.modality import ToldModality
from monai_effsam.labelling.images import OpenedImage

__all__ = ["LabellingAnswer", "seconds_of"]


@dataclass(frozen=True)
class LabellingAnswer:
    """The answer to one request.

    Args:
        opened: the image, read.
        mask: (N, H, W) uint8 in reading order, `values`.
        values: name -> value of the classes that the mask shows, in ascending order.
        quality: name -> the model's own estimate of IoU, 0..1, also of targets that were looked for and not found.
        seconds: time spent, by stage.
        told: the modality that the model was told, and by whom.
    """

    opened: OpenedImage
    mask: NDArray[np.uint8]
    values: dict[str, int]
    quality: dict[str, float]
    seconds: dict[str, float]
    told: ToldModality

    @property
    def image(self) -> Image:
        """The image that `mask` lies on."""
        return self.opened.image


def seconds_of(ms: Mapping[str, float], start: float) -> dict[str, float]:
    """Stages in seconds, and all of it since `start`, by `time.perf_counter`."""
    stages = {stage: round(spent / 1000, 4) for stage, spent in ms.items()}
    return {**stages, "total": round(time.perf_counter() - start, 4)}
