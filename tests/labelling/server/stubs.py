# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Tasks and trainers that answer at once and tell what they were asked."""

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import SimpleITK as sitk
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First

from monai_effsam.labelling.app import LabellingApp
from monai_effsam.labelling.store.folder import FolderStore


class StubTask(InferTask):
    """Sets the voxels of its points, or all that are bright; `seconds` is how long it works."""

    def __init__(self, kind: str, dimension: int) -> None:
        config = {"seconds": 0.0, "depth": ["shallow", "deep"]}
        super().__init__(kind, {"organ": 1}, dimension, "For tests.", config)
        self.asked: list[dict[str, Any]] = []

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        self.asked.append(request)
        time.sleep(request.get("seconds", 0.0))
        image = sitk.ReadImage(request["image"])
        mask = sitk.Cast(image > 200, sitk.sitkUInt8) if "foreground" not in request else image * 0
        mask = sitk.Cast(mask, sitk.sitkUInt8)
        for point in request.get("foreground", []):
            mask[tuple(int(v) for v in point)] = 1
        handle, path = tempfile.mkstemp(suffix=request.get("result_extension", ".nrrd"))
        os.close(handle)
        sitk.WriteImage(mask, path)
        return path, {"label_names": {"organ": 1}, "latencies": {"total": 0.1}, "path": path}


class StubTrainer(TrainTask):
    """Trains until it is cancelled, or for `max_epochs` hundredths of a second."""

    def __init__(self) -> None:
        super().__init__("For tests.")
        self.cancelled = threading.Event()
        self.asked: list[dict[str, Any]] = []

    def config(self) -> dict[str, Any]:
        return {"max_epochs": 5, "part": ["decoder", "controller"], "name": "decoder"}

    def stats(self) -> dict[str, Any]:
        return {"epoch": 1, "total_epochs": 5, "best_metric": 0.5, "total_time": ""}

    def cancel(self) -> None:
        self.cancelled.set()

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        self.asked.append(request)
        self.cancelled.clear()
        self.cancelled.wait(request.get("max_epochs", 5) / 100)
        return {}


class StubService:
    """No model is loaded; `prepared` is what was to be encoded ahead."""

    def __init__(self) -> None:
        self.prepared: list[Path] = []

    def prepare(self, path: Any) -> None:
        self.prepared.append(path())

    def close(self) -> None:
        pass


class StubApp(LabellingApp):
    """The app with tasks that need no model."""

    def init_datastore(self) -> Any:
        """A folder, also where a PACS is named: what is behind the proxy is not asked for images here."""
        return FolderStore(Path(self.app_dir).parent / "studies")

    def init_infers(self) -> dict[str, Any]:
        return {"automatic": StubTask("segmentation", 3), "prompted_2d": StubTask("deepgrow", 2)}

    def init_trainers(self) -> dict[str, Any]:
        return {"decoder": StubTrainer()}

    def init_strategies(self) -> dict[str, Any]:
        return {"first": First()}
