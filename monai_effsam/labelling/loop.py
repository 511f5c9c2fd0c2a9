# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What an app needs to learn and to choose, tied together: trainer, strategies, background scores, the model in use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_effsam.data.io import Image
from monai_effsam.errors import DataError, EffsamError
from monai_effsam.inference.answers import Encoding
from monai_effsam.labelling.choosing.background import BackgroundScorer
from monai_effsam.labelling.choosing.leases import Leases
from monai_effsam.labelling.choosing.score_table import ScoreTable
from monai_effsam.labelling.choosing.scores import ImageScores, score_image
from monai_effsam.labelling.choosing.strategies import NextImage, make_strategies
from monai_effsam.labelling.learning.publication import current
from monai_effsam.labelling.learning.trainer import FineTuning
from monai_effsam.labelling.service import LabellingService
from monai_effsam.specs import PROMPTABLE, SELF_PROMPTING, spec_of

__all__ = ["LearningLoop", "published_in"]

log = logging.getLogger(__name__)


class LearningLoop:
    """Learning and choosing of one app.

    Args:
        service: answers with the model in use.
        datastore: a `FolderStore` or `DicomWebStore`.
        folder: of this app: `model/KIND/` holds the published versions, `scores/` scores and leases.
        base: the model that the app started from.
        modality: of images that do not tell it.
        train_every: submitted labels that make a training due; 0 for never.
        busy: whether users wait for the network; then scoring does.
    """

    def __init__(
        self,
        service: LabellingService,
        datastore: Any,
        folder: Path,
        base: Path,
        *,
        modality: str | None = None,
        train_every: int = 0,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.service, self.datastore, self.train_every = service, datastore, train_every
        self.folder, self.modality = folder, modality
        self.trainer = FineTuning(
            base, published_in(folder, SELF_PROMPTING), modality=modality, targets=service.wanted
        )
        self.table = ScoreTable(folder / "scores")
        self.leases = Leases(file=folder / "scores" / "leases.json")
        self.scorer = BackgroundScorer(datastore, self.table, self._model, self._score, busy=busy)
        self._in_use: dict[str, Path] = {}
        self._adopting = threading.Lock()

    def trainers(self) -> dict[str, FineTuning]:
        """For `init_trainers`."""
        return {"effsam": self.trainer}

    def strategies(self) -> dict[str, NextImage]:
        """For `init_strategies`."""
        return dict(make_strategies(self.table, self.leases))

    def start(self) -> None:
        """Take up the last published models, and begin to score."""
        self.adopt()
        self.scorer.start()

    def close(self) -> None:
        """End the background work."""
        self.trainer.cancel()
        self.scorer.stop()

    def adopt(self) -> bool:
        """Answer with the models that were published last, wherever they were trained; cheap where nothing changed.

        Returns:
            Whether another model is in use now.
        """
        changed = False
        with self._adopting:
            for kind in (SELF_PROMPTING, PROMPTABLE):
                try:
                    path = current(published_in(self.folder, kind))
                    if path is None or path == self._in_use.get(kind):
                        continue
                    self.service.use_model(path)
                except EffsamError as error:
                    log.warning("the model in use stays: %s", error)
                    continue
                self._in_use[kind] = path
                changed = True
        if changed:
            self.scorer.wake()
        return changed

    def submitted(self, image_id: str) -> bool:
        """To be called when a final label was stored.

        Returns:
            Whether a training is due.
        """
        self.leases.give_back(image_id)
        self.scorer.wake()
        return self.trainer.due(self.datastore, self.train_every)

    def _model(self) -> str:
        """What scores depend on: the weights in use, and the targets.

        Weights of a training in another process are taken up here at the latest.
        """
        self.adopt()
        segmenter = self.service.model.segmenter
        weights = str(segmenter.model.card.get("sha256") or self.service.model.identity)
        return ":".join((weights, *sorted(self.service.wanted)))

    def _score(self, path: Path) -> ImageScores:
        model = self.service.model
        opened = self.service.shelf.open(path, self.modality)
        known = model.segmenter.modalities
        modality = opened.told(self.modality, known).modality
        if modality is None:
            raise DataError(f"{path.name}: modality is unknown, expected one of {', '.join(known)}. Name it.")

        def encode(image: Image, index: int, modality: str) -> Encoding:
            spec = spec_of(model.segmenter.model.specs, modality)
            key = opened.key(index, model.identity, spec, modality)
            found = self.service.cache.get(key)
            if found is None:
                found = model.segmenter.encode(image, index, modality)
                self.service.cache.put(key, found)  # so the image is encoded when a user opens it
            return found

        return score_image(model.segmenter, opened.image, modality, encode, self.service.wanted)


def published_in(folder: Path, kind: str) -> Path:
    """Where an app keeps the published versions of a model.

    Args:
        folder: of the app.
        kind: `SELF_PROMPTING` or `PROMPTABLE`.
    """
    return folder / "model" / kind
