# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The labelling app: wires store, tasks, trainer and strategies together for MONAI Label's interfaces."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

from monai_effsam.inference.model_path import find_model_path
from monai_effsam.labelling.conf import check_conf, conf_count, open_service
from monai_effsam.labelling.learning.uploaded import publish_weights
from monai_effsam.labelling.loop import LearningLoop, published_in
from monai_effsam.labelling.mask_file import nrrd_of_voxels
from monai_effsam.labelling.store.connection import connect
from monai_effsam.labelling.store.folder import FolderStore
from monai_effsam.labelling.store.state import ORIGINAL
from monai_effsam.labelling.tasks import inference_tasks
from monai_effsam.specs import PROMPTABLE, SELF_PROMPTING

__all__ = ["LabellingApp", "is_address"]

logger = logging.getLogger(__name__)


class LabellingApp(MONAILabelApp):
    """Automatic masks, boxes and clicks, class prompts, learning and choosing, for one folder or PACS.

    Args:
        app_dir: a folder that may be written to: models, cache.
        studies: folder of images, or address of a DICOMweb service.
        conf: settings as text, see `conf.CONF_KEYS`.

    Raises:
        UsageError: a key of `conf` that is unknown.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        check_conf(conf)
        self._base = find_model_path(Path(conf["model"]) if conf.get("model") else None, "conf model")
        self._every = conf_count(conf, "train_every", 0)
        self.service = open_service(Path(app_dir), conf)
        self.loop: LearningLoop | None = None
        self.train_later: Callable[[str], object] = self.async_training
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
        """The store of the folder or the PACS; nothing is asked of it yet."""
        if is_address(self.studies):
            return connect(
                self.studies, Path(self.app_dir) / "pacs", fetch_all=self.conf.get("fetch_all") == "1"
            )
        return FolderStore(self.studies)

    def init_infers(self) -> dict[str, Any]:
        """The inference tasks."""
        return dict(inference_tasks(self.service))

    def init_trainers(self) -> dict[str, Any]:
        """The trainer of the self-prompting model."""
        return dict(self._learning().trainers())

    def init_strategies(self) -> dict[str, Any]:
        """What to label next."""
        return dict(self._learning().strategies())

    def on_init_complete(self) -> None:
        """Take up the models that were published, and begin to score; called once, by a process that serves."""
        if self.loop is not None:
            self.loop.start()

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, Any]:
        """A label was submitted: its image is free again, and a training may be due.

        Returns:
            `training`, the name of the trainer, where one was started.
        """
        if self.loop is None or not self.loop.submitted(image_id):
            return {}
        name = next(iter(self.trainers))
        try:
            self.train_later(name)
        except HTTPException as error:  # one is running; this label makes the next one due
            logger.info("training is due, but %s", error.detail)
            return {}
        return {"training": name}

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
        kept = path and stored and asked.get("save_label")
        info = {"model": asked["model"], "params": params}
        label = self.save_label(name, Path(path), ORIGINAL, info) if kept else path
        return {"label": label, "tag": ORIGINAL, "file": path, "params": params}

    def save_label(self, image: str, path: Path, tag: str, info: Mapping[str, Any]) -> str:
        """Store a label; bare voxels (`.bin`) become a file that tells its grid. Returns its id."""
        store = self.datastore()
        if path.suffix != ".bin":
            return str(store.save_label(image, str(path), tag, dict(info)))
        grid, whole = (
            self.service.shelf.open(Path(store.get_image_uri(image))).grid,
            path.with_suffix(".nrrd"),
        )
        try:
            whole.write_bytes(nrrd_of_voxels(path.read_bytes(), grid))
            return str(store.save_label(image, str(whole), tag, dict(info)))
        finally:
            whole.unlink(missing_ok=True)

    def train(self, request: Mapping[str, Any]) -> Any:
        """Run one training, here and now, and answer with what it published."""
        trainer = self.trainers.get(str(request.get("model")))
        if trainer is None:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, "trainer: there is none of this name.")
        result = trainer(dict(request), self.datastore())
        if self.loop is not None:
            self.loop.adopt()
        return result

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The image to label next, as `{"id": ...}`, and what is known of it; empty when there is none.

        It is fetched and encoded in the background while the user opens it.
        """
        strategy = self.strategies.get(str(request.get("strategy")))
        if strategy is None:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, "strategy: there is none of this name.")
        store = self.datastore()
        found = dict(strategy(dict(request), store) or {})
        if found:
            self.service.prepare(lambda: Path(store.get_image_uri(found["id"])))
        return found

    def take_model(self, name: str, path: Path) -> str:
        """Publish weights that an admin has uploaded, and answer with them from now on; returns their version.

        Raises:
            WeightsError: they do not fit; the old model stays.
            UsageError: the model in use is an export, which has no weights to replace.
        """
        served = self.service.prompted_model if name.startswith("prompted") else self.service.model
        kind = PROMPTABLE if served.segmenter.promptable else SELF_PROMPTING
        version = publish_weights(path, served.segmenter, published_in(Path(self.app_dir), kind))
        if self.loop is None or not self.loop.adopt():
            self.service.use_model(version)
        logger.info("model %s was uploaded as %s", name, version.parent.name)
        return version.parent.name

    def close(self) -> None:
        """Let go of threads and caches."""
        if self.loop is not None:
            self.loop.close()
        self.service.close()

    def _learning(self) -> LearningLoop:
        """Made at the first use: MONAI Label's constructor calls the hooks when the store is there."""
        if self.loop is None:
            self.loop = LearningLoop(
                self.service,
                self.datastore(),
                Path(self.app_dir),
                self._base,
                modality=self.conf.get("modality"),
                train_every=self._every,
                busy=lambda: self.service.busy,
            )
        return self.loop

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


def is_address(studies: str) -> bool:
    """Whether studies are those of a PACS."""
    return studies.startswith(("http://", "https://"))
