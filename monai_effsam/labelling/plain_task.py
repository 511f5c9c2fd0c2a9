# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A first automatic task straight over the `Segmenter`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from monai_effsam.data.io import read_image
from monai_effsam.inference.model_path import find_model_path
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.targets import targets_of

__all__ = ["PlainAutomatic"]


class PlainAutomatic(InferTask):  # type: ignore[misc]
    """All targets of one modality, without a prompt."""

    def __init__(self, model: str | None, modality: str) -> None:
        self._segmenter = Segmenter.open(find_model_path(Path(model) if model else None))
        self._modality = modality
        table = targets_of(modality, self._segmenter.model.targets)
        labels = {target.name: number for number, target in enumerate(table, 1)}
        super().__init__(InferType.SEGMENTATION, labels, 3, "Outlines what it knows, without a prompt.")

    def is_valid(self) -> bool:
        """The model is loaded."""
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """(path of a NRRD, what is told besides)."""
        import itk
        import numpy as np

        image = read_image(Path(request["image"]), modality=self._modality)
        found = self._segmenter.segment(image, self._modality)
        present = [target for target in found.targets if (found.mask == target.value).any()]
        mask = np.zeros_like(found.mask)
        for number, target in enumerate(present, 1):
            mask[found.mask == target.value] = number
        handle, path = tempfile.mkstemp(suffix=".nrrd")
        os.close(handle)
        volume = itk.image_from_array(mask if len(mask) > 1 else mask[0])
        itk.imwrite(volume, path)
        names = {target.name: number for number, target in enumerate(present, 1)}
        return path, {"latencies": found.ms, "label_names": names}
