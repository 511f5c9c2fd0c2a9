# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What all tasks share: a request is parsed, answered by the service, and written as its viewer reads it."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask

from monai_effsam.labelling.mask_file import write_mask_file
from monai_effsam.labelling.requests import InferenceRequest
from monai_effsam.labelling.service import LabellingAnswer, LabellingService

__all__ = ["ServiceTask", "service_labels"]

_STAGES = {"pre": ("read", "key", "prepare"), "infer": ("encode", "decode"), "invert": (), "post": ("place",)}
"""Stages of MONAI Label, and which of ours they hold."""


class ServiceTask(InferTask):
    """A task that asks the service.

    Args:
        service: shared by all tasks of a server.
        kind: `segmentation` or `deepgrow`: decides the panel in Slicer and the tab in OHIF.
        dimension: 2 or 3.
        description: shown to the user.
        config: options that viewers show.
    """

    def __init__(
        self,
        service: LabellingService,
        kind: str,
        dimension: int,
        description: str,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.service = service
        super().__init__(kind, service_labels(service), dimension, description, config)

    def is_valid(self) -> bool:
        """Always: the service would not be there without its models."""
        return True

    def info(self) -> dict[str, Any]:
        """As MONAI Label shows it, with the targets of the model of this moment."""
        self.labels = service_labels(self.service)
        told: dict[str, Any] = super().info()
        return told

    @abstractmethod
    def answer(self, request: InferenceRequest) -> LabellingAnswer:
        """What the service says."""

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The mask file, and what is told beside it.

        Returns:
            Path of a temporary file that the caller removes; `label_names` (name -> value of exactly the classes that
            the mask shows), `quality`, `latencies` [s], `modality` and `modality_source` (`caller`, `dicom`, `router`).

        Raises:
            EffsamError: in one line, what is wrong with the request or its image.
        """
        start = time.perf_counter()
        labels = service_labels(self.service)
        asked = InferenceRequest.of(request, labels)
        with self.service.request():
            found = self.answer(asked)
        values = _values(found.values, labels if asked.fixed_values else None)
        table = np.zeros(256, np.uint8)
        for name, value in values.items():
            table[found.values[name]] = value
        writing = time.perf_counter()
        mask = found.mask if values == found.values else table[found.mask]
        path = write_mask_file(
            found.image, mask, found.opened.grid, asked.extension, compressed=asked.compressed
        )
        end = time.perf_counter()
        latencies = {
            stage: round(sum(found.seconds.get(part, 0.0) for part in parts), 4)
            for stage, parts in _STAGES.items()
        }
        latencies |= {"write": round(end - writing, 4), "total": round(end - start, 4)}
        stages = {part: spent for part, spent in found.seconds.items() if part != "total"}
        return str(path), {
            "latencies": {**latencies, **stages},
            "quality": found.quality,
            "label_names": values,
            "modality": found.told.modality,
            "modality_source": found.told.source,
        }


def service_labels(service: LabellingService) -> dict[str, int]:
    """Name -> value as `/info/` tells: 1..n in the order of the target table."""
    return {target.name: number for number, target in enumerate(service.targets(), 1)}


def _values(found: Mapping[str, int], fixed: Mapping[str, int] | None) -> dict[str, int]:
    """Values that are written: 1..n of the classes found, as Slicer counts them, or those that `/info/` told."""
    if fixed is None or not found.keys() <= fixed.keys():
        return {name: number for number, name in enumerate(found, 1)}
    return {name: fixed[name] for name in found}
