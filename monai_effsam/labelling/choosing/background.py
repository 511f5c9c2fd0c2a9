# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Scores made while nobody waits for them: one thread, image after image, once for each image and model."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_effsam.errors import EffsamError
from monai_effsam.labelling.choosing.score_table import ScoreTable
from monai_effsam.labelling.choosing.scores import ImageScores

__all__ = ["BackgroundScorer"]

log = logging.getLogger(__name__)

SAVE_EVERY = 50
"""Images after which the scores are written."""


class BackgroundScorer:
    """Keeps a score table complete.

    Args:
        datastore: a `FolderStore` or `DicomWebStore`; unlabelled images come first, labelled ones tell what is known.
        table: to be filled.
        model: what tells the model in use from others; asked before each image.
        score: path of an image -> scores, by the model in use.
        busy: whether users wait; then scoring does.
        pause: between two looks for new images, unless `wake` is called [s].
    """

    def __init__(
        self,
        datastore: Any,
        table: ScoreTable,
        model: Callable[[], str],
        score: Callable[[Path], ImageScores],
        *,
        busy: Callable[[], bool] = lambda: False,
        pause: float = 30.0,
    ) -> None:
        self.datastore, self.table, self.model, self.score = datastore, table, model, score
        self.busy, self.pause = busy, pause
        self._wake, self._stop = threading.Event(), threading.Event()
        self._failed: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="scores", daemon=True)

    def start(self) -> None:
        """Begin; the thread ends with the process."""
        self._thread.start()

    def stop(self) -> None:
        """End after the image in hand, and write what is there."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self.table.save()

    def wake(self) -> None:
        """Look for new images, or for another model, now."""
        self._wake.set()

    def round(self) -> int:
        """Score everything that lacks scores; how many images were scored."""
        model = self.model()
        self.table.use_model(model)
        done = 0
        for name, stamp in self._lacking():
            while self.busy() and not self._stop.is_set():
                time.sleep(0.05)
            if self._stop.is_set() or self.model() != model:
                break
            try:
                self.table.put(name, stamp, self.score(Path(self.datastore.get_image_uri(name))), model)
                done += 1
            except (EffsamError, OSError, ValueError) as error:
                log.warning("%s: has no scores, %s", name, error)
                self._failed[name] = stamp + model
            if self.table.unsaved >= SAVE_EVERY:
                self.table.save()
        self.table.save()
        return done

    def _lacking(self) -> list[tuple[str, str]]:
        """Images to be scored, and their stamps: unlabelled ones first."""
        unlabelled = self.datastore.get_unlabeled_images()
        order = [*unlabelled, *sorted(set(self.datastore.list_images()) - set(unlabelled))]
        stamps = {name: stamp for name in order if (stamp := self.datastore.stamp(name))}
        return [
            (name, stamps[name])
            for name in self.table.lacking(stamps)
            if self._failed.get(name) != stamps[name] + self.table.model
        ]

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.round()
            except Exception:
                log.exception("scores: a round failed, the next one begins in %.0f s", self.pause)
            self._wake.wait(self.pause)
