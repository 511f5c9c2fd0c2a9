# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Masks without a click: of all targets of the modality, or of one."""

from __future__ import annotations

from typing import Any

from monai_effsam.data.io.dicom_header import DICOM_MODALITIES
from monai_effsam.errors import UsageError
from monai_effsam.labelling.requests import InferenceRequest
from monai_effsam.labelling.service import LabellingAnswer, LabellingService
from monai_effsam.labelling.tasks.base import ServiceTask

__all__ = ["AutomaticTask", "ClassPromptTask"]


class AutomaticTask(ServiceTask):
    """All targets of the image's modality.

    Args:
        service: shared by all tasks of a server.
    """

    def __init__(self, service: LabellingService) -> None:
        super().__init__(
            service, "segmentation", 3, "Outlines every structure that the model knows, without a click"
        )

    def info(self) -> dict[str, Any]:
        """As of every task, and `modalities`: DICOM's word for one (such as `US`) -> targets outlined there."""
        known = self.service.model.segmenter.modalities
        fitting = {
            word: [target.name for target in self.service.targets(name)]
            for word, name in DICOM_MODALITIES.items()
            if name in known
        }
        return super().info() | {"modalities": fitting}

    def answer(self, request: InferenceRequest) -> LabellingAnswer:
        """Of all targets, or of those that OHIF names by value."""
        return self.service.automatic(request.image, modality=request.modality, targets=request.targets)


class ClassPromptTask(ServiceTask):
    """One target, chosen by name.

    Args:
        service: shared by all tasks of a server.
    """

    def __init__(self, service: LabellingService) -> None:
        names = [target.name for target in service.targets()]
        super().__init__(
            service, "segmentation", 3, "Outlines the structure that is chosen by name", {"target": names}
        )

    def answer(self, request: InferenceRequest) -> LabellingAnswer:
        """Of the targets named.

        Raises:
            UsageError: none is named.
        """
        if not request.targets:
            raise UsageError(
                "target: none is named, expected the name of a target. Choose one in the options."
            )
        return self.service.automatic(request.image, modality=request.modality, targets=request.targets)
