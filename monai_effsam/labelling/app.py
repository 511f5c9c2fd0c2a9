# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The labelling app: wires store, tasks, trainer and strategies together for MONAI Label's interfaces."""

from __future__ import annotations

import copy
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

from monai_effsam.errors import UsageError
from monai_effsam.inference.embedding_cache import EmbeddingCache
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.labelling.learning.publication import publish
from monai_effsam.labelling.service import LabellingService
from monai_effsam.labelling.store.folder import FolderStore
from monai_effsam.labelling.tasks import inference_tasks

__all__ = ["CONF_KEYS", "LabellingApp"]

logger = logging.getLogger(__name__)

CONF_KEYS: Mapping[str, str] = {
    "modality": "of images that do not tell it",
    "model": "path of the self-prompting model",
    "prompted_model": "path of the model for boxes and clicks",
    "cache": "folder of embeddings",
    "cache_mb": "largest size of that folder [MB]",
    "train_every": "train after so many submitted labels; 0: only when asked",
}
"""What `--conf` may hold, and what it means."""

_STOCK_KEYS = frozenset({"server_mode", "models", "name"})
_CACHE_MB = 4096


class LabellingApp(MONAILabelApp):
    """Automatic masks, boxes and clicks, class prompts, learning and choosing, for one folder or PACS.

    Args:
        app_dir: a folder that may be written to: models, cache.
        studies: folder of images, or address of a DICOMweb service.
        conf: settings as text, see `CONF_KEYS`.

    Raises:
        UsageError: a key of `conf` that is unknown.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        unknown = sorted(set(conf) - set(CONF_KEYS) - _STOCK_KEYS)
        if unknown:
            raise UsageError(f"conf: '{unknown[0]}' is unknown, expected one of {', '.join(CONF_KEYS)}.")
        self.service = _service(Path(app_dir), conf)
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=dict(conf),
            name="effsam",
            description="Masks without a click, boxes and clicks where they are wanted, and a model that learns.",
            version="1.0",
        )

    # what the server reads

    @property
    def tasks(self) -> Mapping[str, Any]:
        """Inference tasks by name."""
        return {name: task for name, task in self._infers.items() if task.is_valid()}

    @property
    def trainers(self) -> Mapping[str, Any]:
        """Trainers by name."""
        return self._trainers

    @property
    def strategies(self) -> Mapping[str, Any]:
        """Strategies by name."""
        return self._strategies

    @property
    def scoring_methods(self) -> Mapping[str, Any]:
        """Scoring methods by name."""
        return self._scoring_methods

    # MONAI Label's hooks

    def init_datastore(self) -> Any:
        """The store of the folder or the PACS."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return FolderStore(self.studies)

    def init_infers(self) -> dict[str, Any]:
        """The inference tasks."""
        return dict(inference_tasks(self.service))

    def on_init_complete(self) -> None:
        """Nothing: the stock app would start scoring and a second clean-up here."""

    # requests

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Answer one inference; may be called from several threads at once.

        Args:
            request: `model`, `image` (an id of the store, or a file that the server has received), parameters.
            datastore: instead of the app's own.

        Returns:
            `file` (path of the mask, or None), `label`, `tag`, `params`.
        """
        task = self.tasks.get(str(request.get("model")))
        if task is None:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, "model: there is none of this name.")
        store = datastore or self.datastore()
        asked = copy.deepcopy(dict(request))
        name = asked["image"]
        asked["image"], stored = self._image_path(name, store)
        path, params = task(asked)
        label = path
        if path and stored and asked.get("save_label"):
            label = self.save_label(name, Path(path), "original", {"model": asked["model"], "params": params})
        return {"label": label, "tag": "original", "file": path, "params": params}

    def save_label(self, image: str, path: Path, tag: str, info: Mapping[str, Any]) -> str:
        """Store a label; returns its id."""
        return str(self.datastore().save_label(image, str(path), tag, dict(info)))

    def train(self, request: Mapping[str, Any]) -> Any:
        """Run one training, here and now."""
        trainer = self.trainers.get(str(request.get("model")))
        if trainer is None:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, "trainer: there is none of this name.")
        return trainer(dict(request), self.datastore())

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The image to label next, as `{"id": ...}`; empty when there is none."""
        strategy = self.strategies.get(str(request.get("strategy")))
        if strategy is None:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, "strategy: there is none of this name.")
        return dict(strategy(dict(request), self.datastore()) or {})

    def take_model(self, name: str, path: Path) -> str:
        """Publish weights that an admin has uploaded, and answer with them from now on; returns their version.

        They are described by what describes the model in use, so they must be of its kind.

        Raises:
            WeightsError: they do not fit; the old model stays.
            UsageError: the model in use is an export, which has no weights to replace.
        """
        served = self.service.prompted_model if name.startswith("prompted") else self.service.model
        card = served.segmenter.model.path.with_suffix(".json")
        if not card.is_file():
            raise UsageError(
                f"model: {name} runs as an export, expected weights to replace. Serve a model.pt."
            )

        def write(folder: Path) -> None:
            shutil.copyfile(path, folder / "model.pt")
            described = json.loads(card.read_text(encoding="utf-8"))
            described.pop("sha256", None)
            (folder / "model.json").write_text(json.dumps(described), encoding="utf-8")
            Segmenter.open(folder / "model.pt")  # raises what does not fit, before anything points here

        version = publish(Path(self.app_dir) / "model", write)
        version = version if version.is_dir() else version.parent
        self.service.use_model(version / "model.pt")
        logger.info("model %s was uploaded as %s", name, version.name)
        return version.name

    def close(self) -> None:
        """Let go of threads and caches."""

    def _image_path(self, image: str, store: Any) -> tuple[str, bool]:
        """(path, whether it is of the store) of an id, or of a file that a server has received.

        An existing path is believed only inside folders that servers write uploads to: a request must not choose what
        is read here.
        """
        uri = str(store.get_image_uri(image) or "") if image in store.list_images() else ""
        if uri:
            return uri, True
        path = Path(image)
        if path.is_absolute() and path.exists():
            real = path.resolve()
            if any(real.is_relative_to(folder) for folder in self._upload_folders()):
                return str(real), False
        raise MONAILabelException(MONAILabelError.INVALID_INPUT, "image: there is none of this id.")

    def _upload_folders(self) -> list[Path]:
        folders = [
            Path(self.app_dir) / "uploads",
            Path(self.app_dir) / "sessions",
            Path(tempfile.gettempdir()),
        ]
        if self._sessions is not None:
            folders.append(Path(self._sessions.store_path))
        return [folder.resolve() for folder in folders]


def _service(app_dir: Path, conf: Mapping[str, str]) -> LabellingService:
    """The models and caches that the settings ask for."""
    model, prompted = (conf.get(name) for name in ("model", "prompted_model"))
    megabytes = conf.get("cache_mb", str(_CACHE_MB))
    if not megabytes.isdecimal():
        raise UsageError(f"conf: cache_mb is '{megabytes}', expected a whole number of megabytes.")
    folder = Path(conf.get("cache") or app_dir / "cache")
    return LabellingService(
        Path(model) if model else None,
        Path(prompted) if prompted else None,
        modality=conf.get("modality"),
        cache=EmbeddingCache(folder, disk_bytes=int(megabytes) * 10**6),
    )
