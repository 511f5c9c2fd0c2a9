# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What all routes of one server share: the app, its stores, its queues, and who cleans up."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from monai_effsam.labelling.server.auth import Gate
from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.jobs import Jobs
from monai_effsam.labelling.server.names import check_known
from monai_effsam.labelling.server.sessions import SessionStore
from monai_effsam.labelling.server.settings import ServerSettings
from monai_effsam.labelling.server.turns import InferenceQueue

if TYPE_CHECKING:
    from monai_effsam.labelling.app import LabellingApp

__all__ = ["ServerState"]

logger = logging.getLogger(__name__)

_JANITOR_SECONDS = 60.0


class ServerState:
    """The parts of one server.

    Args:
        app: answers the requests.
        settings: of the server.
        gate: tells users.
    """

    def __init__(self, app: LabellingApp, settings: ServerSettings, gate: Gate) -> None:
        self.app, self.settings, self.gate = app, settings, gate
        limits = settings.limits
        self.uploads = settings.folder("uploads")
        self.sessions = SessionStore(settings.folder("sessions"), limits)
        self.training = Jobs("train", keep=limits.jobs)
        self.scoring = Jobs("scoring", keep=limits.jobs)
        self.inference = InferenceQueue(limits.running, limits.waiting)
        self.store_lock = Lock()
        self._stopped = Event()

    @property
    def store(self) -> Any:
        """The datastore of the app."""
        return self.app.datastore()

    def image_path(self, name: str) -> Path:
        """The file (or DICOM folder) of an image of the store.

        Raises:
            Refusal: 404, there is none.
        """
        check_known(name)
        uri = self.store.get_image_uri(name) if self.has_image(name) else ""
        if not uri or not Path(uri).exists():
            raise Refusal(404, "image: there is none of this id.")
        return Path(uri)

    def has_image(self, name: str) -> bool:
        """Whether the store knows an image; no path is looked at."""
        check_known(name)
        knows = getattr(self.store, "has_image", None)
        return bool(knows(name)) if knows is not None else name in self.store.list_images()

    def label_path(self, name: str, tag: str) -> Path:
        """The file of a label of the store.

        Raises:
            Refusal: 404, there is none.
        """
        check_known(name, "label")
        uri = self.store.get_label_uri(name, tag)
        if not uri or not Path(uri).is_file():
            raise Refusal(404, "label: there is none of this id and tag.")
        return Path(uri)

    def start(self) -> None:
        """Start what the app does in the background, and to clean up, now and each minute."""
        self.app.server_mode(True)
        self.app.on_init_complete()
        Thread(target=self._janitor, name="janitor", daemon=True).start()

    def stop(self) -> None:
        """Let go of what runs; a training is asked to end."""
        self._stopped.set()
        self.training.stop()
        self.scoring.stop()
        close = getattr(self.app, "close", None)
        if close is not None:
            close()

    def clean(self) -> None:
        """Remove what is too old or too much; one bad file does not keep the others."""
        self.sessions.clean()
        oldest = time.time() - self.settings.limits.upload_seconds
        for path in self.uploads.iterdir():
            try:
                if path.lstat().st_mtime < oldest:
                    path.unlink()
            except OSError as error:
                logger.warning("a stray upload cannot be removed: %s", error.strerror)

    def _janitor(self) -> None:
        while True:
            try:
                self.clean()
            except Exception:
                logger.exception("cleaning up failed; it is tried again")
            if self._stopped.wait(_JANITOR_SECONDS):
                return
