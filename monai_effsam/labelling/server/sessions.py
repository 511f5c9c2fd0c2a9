# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Volumes that exist only in a viewer: uploaded, used for a while, removed by age, number and size."""

from __future__ import annotations

import json
import logging
import shutil
import stat
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.names import check_session
from monai_effsam.labelling.server.settings import Limits

__all__ = ["Session", "SessionStore"]

logger = logging.getLogger(__name__)

_META = "session.json"


@dataclass(frozen=True, slots=True)
class Session:
    """One uploaded image.

    Args:
        name: its id.
        image: name of its file, or of its folder of DICOM files, inside the session's folder.
        size: of all its files [bytes].
        created: when it came [s since 1970].
        expiry: it is removed when it has not been used for so long [s].
    """

    name: str
    image: str
    size: int
    created: float
    expiry: float

    def to_json(self, used: float) -> dict[str, Any]:
        """As the clients know it; no paths."""
        return {
            "name": self.name,
            "image": self.image,
            "meta": {},
            "create_ts": int(self.created),
            "last_access_ts": int(used),
            "expiry": int(self.expiry),
        }


class SessionStore:
    """Sessions as folders named by UUIDs; the time of the folder's last use is that of its description.

    Args:
        folder: of this store alone.
        limits: number, size and age.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._lock = Lock()

    def add(self, files: Sequence[tuple[Path, str]], expiry: float = 0.0) -> Session:
        """Take over files that were uploaded.

        Args:
            files: (path, suffix) of each; more than one is a DICOM series.
            expiry: wanted by the client [s]; at most the server's own.

        Raises:
            Refusal: 413, larger than all sessions together may be.
        """
        size = sum(path.stat().st_size for path, _ in files)
        if size > self._limits.session_bytes:
            raise Refusal(413, "session: is too large.")
        longest = self._limits.session_seconds
        name = str(uuid.uuid4())
        image = f"image{files[0][1]}" if len(files) == 1 else "series"
        session = Session(name, image, size, time.time(), min(expiry, longest) if expiry > 0 else longest)
        half = self._folder / f".{name}"
        half.mkdir(mode=0o700)
        place = half if len(files) == 1 else half / image
        place.mkdir(exist_ok=True, mode=0o700)
        for number, (path, suffix) in enumerate(files):
            path.replace(place / (image if len(files) == 1 else f"{number:05d}{suffix}"))
        (half / _META).write_text(json.dumps(asdict(session)), encoding="utf-8")
        half.rename(self._folder / name)
        self.clean(keep=name)
        return session

    def get(self, name: str, *, touch: bool = True) -> Session:
        """A session that has not expired; its use is noted.

        Raises:
            Refusal: 404.
        """
        meta = self._folder / check_session(name) / _META
        try:
            session = Session(**json.loads(meta.read_text(encoding="utf-8")))
            if time.time() - meta.stat().st_mtime > session.expiry or not self._image(session).exists():
                raise FileNotFoundError
            if touch:
                meta.touch()
        except (OSError, ValueError, TypeError) as error:
            raise _none() from error
        return session

    def path(self, name: str) -> Path:
        """The image of a session.

        Raises:
            Refusal: 404.
        """
        return self._image(self.get(name))

    def used(self, name: str) -> float:
        """When a session was last used [s since 1970].

        Raises:
            Refusal: 404.
        """
        try:
            return (self._folder / check_session(name) / _META).stat().st_mtime
        except OSError as error:
            raise _none() from error

    def remove(self, name: str) -> Session:
        """Remove a session.

        Raises:
            Refusal: 404.
        """
        session = self.get(name, touch=False)
        shutil.rmtree(self._folder / name, ignore_errors=True)
        return session

    def clean(self, keep: str = "") -> None:
        """Remove what has expired, is broken, or is too much: the least recently used first."""
        with self._lock:
            whole: list[tuple[float, Session]] = []
            for folder in self._folder.iterdir():
                try:
                    session = self.get(folder.name, touch=False)
                    whole.append((self.used(folder.name), session))
                except Refusal:
                    self._remove_broken(folder)
            whole.sort(key=lambda pair: pair[0], reverse=True)
            size = 0
            for number, (_, session) in enumerate(whole, 1):
                size += session.size
                over = number > self._limits.sessions or size > self._limits.session_bytes
                if over and session.name != keep:
                    shutil.rmtree(self._folder / session.name, ignore_errors=True)

    def _image(self, session: Session) -> Path:
        return self._folder / session.name / Path(session.image).name

    def _remove_broken(self, folder: Path) -> None:
        """One that is half made is left alone for a minute."""
        try:
            found = folder.lstat()
        except FileNotFoundError:  # another request has just finished, or removed, it
            return
        if stat.S_ISDIR(found.st_mode) and time.time() - found.st_mtime > 60:
            logger.info("session %s has expired or is broken, and is removed", folder.name)
            shutil.rmtree(folder, ignore_errors=True)


def _none() -> Refusal:
    return Refusal(404, "session: there is none of this id.")
