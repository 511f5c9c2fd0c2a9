# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What viewers can ask for, one file a kind of task; thin over the service. Only here is MONAI Label's task known."""

from monai_effsam.labelling.service import LabellingService
from monai_effsam.labelling.tasks.automatic import AutomaticTask, ClassPromptTask
from monai_effsam.labelling.tasks.base import ServiceTask, service_labels
from monai_effsam.labelling.tasks.clicks import SlicePromptTask, VolumePromptTask

__all__ = [
    "AutomaticTask",
    "ClassPromptTask",
    "ServiceTask",
    "SlicePromptTask",
    "inference_tasks",
    "service_labels",
]


def inference_tasks(service: LabellingService) -> dict[str, ServiceTask]:
    """Every task of a server by the name that viewers show; the first is what Slicer runs by itself."""
    return {
        "automatic": AutomaticTask(service),
        "prompted_2d": SlicePromptTask(service),
        "prompted_3d": VolumePromptTask(service),
        "class_prompt": ClassPromptTask(service),
    }
