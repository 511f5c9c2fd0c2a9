# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Masks from points and boxes: of one slice, or carried through a volume."""

from __future__ import annotations

from monai_effsam.labelling.requests import InferenceRequest
from monai_effsam.labelling.service import LabellingAnswer, LabellingService
from monai_effsam.labelling.tasks.base import ServiceTask

__all__ = ["SlicePromptTask", "VolumePromptTask"]


class SlicePromptTask(ServiceTask):
    """What points and a box show in one slice; the mask is a whole volume with that slice filled.

    Args:
        service: shared by all tasks of a server.
    """

    def __init__(self, service: LabellingService) -> None:
        super().__init__(service, "deepgrow", 2, "Outlines what points or a box show in one slice")

    def answer(self, request: InferenceRequest) -> LabellingAnswer:
        """Of the slice that is looked at; without a point inside or a box, nothing."""
        return self.service.prompted_2d(
            request.image, request.clicks, modality=request.modality, label=request.label
        )


class VolumePromptTask(ServiceTask):
    """What points and a box show in one slice or a few, followed through the volume to where the object ends.

    Args:
        service: shared by all tasks of a server.
    """

    def __init__(self, service: LabellingService) -> None:
        super().__init__(
            service,
            "deepgrow",
            3,
            "Outlines what points or a box show in a slice, and follows it to its ends",
        )

    def answer(self, request: InferenceRequest) -> LabellingAnswer:
        """Of the whole object; without a point inside or a box, nothing."""
        return self.service.prompted_3d(
            request.image, request.clicks, modality=request.modality, label=request.label
        )
