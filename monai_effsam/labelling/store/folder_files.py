# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The files of a store: state and labels change together, whatever is killed in between.

A change is written down first (`.pending-*.json`: the new entry, and where the finished copy of its file waits), then
done. Who opens the folder next does what was written down and not done. All of it happens under the folder's lock,
which processes share.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from monai_effsam.data.io.sniff import ENDINGS, stem
from monai_effsam.errors import DataError
from monai_effsam.labelling.durable import PART, beside, copy_durably, move_durably, write_durably
from monai_effsam.labelling.store.state import FolderState, StoredFile, StoredImage, is_id, is_tag

__all__ = ["SERIES", "FolderFiles"]

log = logging.getLogger(__name__)

SERIES = ".dicom"
"""Ending of a folder that holds the files of one DICOM series."""

_PENDING = ".pending-"
_TICK_NS = 100_000_000  # two changes within one tick of a file system's clock may leave the same time


class FolderFiles:
    """A folder of images, their labels, and the state that both are listed in.

    Args:
        folder: made where it is missing.
        state_name: of the file with the state.
    """

    def __init__(self, folder: Path, state_name: str = "datastore_v2.json") -> None:
        self.folder = folder
        self.file = folder / state_name
        self._thread, self._process = threading.RLock(), FileLock(folder / ".lock", thread_local=False)
        self._state = FolderState()
        self._seen: tuple[int, ...] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        logging.getLogger("filelock").setLevel(logging.ERROR)  # else it tells of every lock it takes
        self.state()

    def state(self) -> FolderState:
        """The state now, with what other programs did to the files."""
        if self._seen is None or self._stamps() != self._seen:
            with self._locked():
                pass
        return self._state

    def image_path(self, image_id: str, image: StoredFile) -> Path:
        """Of an image's file."""
        return self.folder / self._state.images_dir / (image_id + image.ext)

    def label_path(self, image_id: str, tag: str, label: StoredFile) -> Path:
        """Of a label's file."""
        return self.folder / self._state.labels_dir / tag / (image_id + label.ext)

    def change(self, make: Callable[[FolderState], FolderState]) -> FolderState:
        """Store what `make` gives for the state now; nothing is written where that is the same object."""
        with self._locked():
            return self._write(make(self._state))

    def put_image(self, image_id: str, source: Path, image: StoredFile) -> None:
        """Copy an image into the folder; labels that it has stay.

        Raises:
            DataError: the system refuses to write.
        """
        with self._locked():
            self._put({"image": image_id, "ext": image.ext, "info": dict(image.info)}, source)

    def put_label(self, image_id: str, tag: str, source: Path, label: StoredFile) -> None:
        """Copy a label of an image that the state lists into the folder.

        Raises:
            DataError: the system refuses to write.
        """
        with self._locked():
            entry = {"image": image_id, "tag": tag, "ext": label.ext, "info": dict(label.info)}
            self._put(entry, source)

    def _put(self, entry: dict[str, Any], source: Path) -> None:
        old = self._entry_now(entry)
        entry["instead_of"] = old.ext if old else entry["ext"]
        part = beside(self._target(entry))
        copy_durably(source, part)
        note = self.folder / f"{_PENDING}{part.name.removeprefix(PART).split('.')[0]}.json"
        write_durably(note, json.dumps({**entry, "part": part.name}, default=str).encode())
        self._finish(note, entry, part)

    def _finish(self, note: Path, entry: dict[str, Any], part: Path) -> None:
        """Do what is written down; doing it again changes nothing."""
        target = self._target(entry)
        if part.is_file():
            move_durably(part, target)
        image_id, tag, stored = entry["image"], entry.get("tag"), StoredFile(entry["ext"], entry["info"])
        old = self._state.objects.get(image_id)
        if tag and old is not None:
            self._write(self._state.with_label(image_id, tag, stored))
        elif not tag:
            self._write(self._state.with_image(image_id, StoredImage(stored, old.labels if old else {})))
        if entry["instead_of"] != entry["ext"]:
            target.with_name(image_id + entry["instead_of"]).unlink(missing_ok=True)
        note.unlink(missing_ok=True)
        self._look()

    def _entry_now(self, entry: dict[str, Any]) -> StoredFile | None:
        """What the state lists where an entry will stand."""
        old = self._state.objects.get(entry["image"])
        tag = entry.get("tag")
        return None if old is None else old.labels.get(tag) if tag else old.image

    def _target(self, entry: dict[str, Any]) -> Path:
        stored = StoredFile(entry["ext"])
        if tag := entry.get("tag"):
            return self.label_path(entry["image"], tag, stored)
        return self.image_path(entry["image"], stored)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The folder for this thread of this process alone, its state up to date."""
        with self._thread, self._process:
            if self._process.lock_counter == 1 and (self._seen is None or self._stamps() != self._seen):
                self._load()
            yield

    def _load(self) -> None:
        """Read the state, do what was left undone, and list files that others put in or took away."""
        known = self._state
        if self.file.is_file():
            try:
                known = FolderState.from_bytes(self.file.read_bytes(), self.file)
            except DataError as error:
                kept = self.file.with_name(f"{self.file.name}.damaged-{int(time.time())}")
                log.warning("%s It is kept as %s.", error, kept.name)
                self.file.replace(kept)
        self._state = known
        for note in sorted(self.folder.glob(f"{_PENDING}*.json")):
            entry = json.loads(note.read_bytes())
            self._finish(note, entry, self._target(entry).with_name(entry["part"]))
        self._write(self._listed(self._state))
        self._look()

    def _listed(self, known: FolderState) -> FolderState:
        """The state with the files that are there; the same object if it had them."""
        images = self._names(self.folder / known.images_dir)
        objects = {k: one for k, one in known.objects.items() if k + one.image.ext in images}
        taken = {k + one.image.ext for k, one in objects.items()}
        for name in sorted(images.keys() - taken):
            image_id = stem(Path(name))
            if image_id in objects:  # a.png and a.jpg: the second goes by its whole name
                image_id = name
            objects[image_id] = StoredImage(_new(name, image_id))
        labels: dict[str, dict[str, dict[str, float]]] = {}
        for folder in self._tags(known):
            for name, written in self._names(folder).items():
                labels.setdefault(stem(Path(name)), {}).setdefault(folder.name, {})[name] = written
        for image_id, one in objects.items():
            there = labels.get(image_id, {})
            kept = {t: f for t, f in one.labels.items() if image_id + f.ext in there.get(t, ())}
            for tag in there.keys() - kept.keys():
                kept[tag] = _new(max(there[tag], key=lambda n: there[tag][n]), image_id)
            if kept != dict(one.labels):
                objects[image_id] = StoredImage(one.image, kept)
        return known if objects == dict(known.objects) else replace(known, objects=objects)

    def _names(self, folder: Path) -> dict[str, float]:
        """Files of a folder that are images by their endings, and when they were written; remains are removed."""
        found: dict[str, float] = {}
        if not folder.is_dir():
            return found
        for path in folder.iterdir():
            if path.name.startswith(PART):
                path.unlink(missing_ok=True)
            elif path.name.lower().endswith(ENDINGS) and is_id(path.name) and _is_image(path):
                found[path.name] = path.stat().st_mtime
        return found

    def _tags(self, state: FolderState) -> list[Path]:
        labels = self.folder / state.labels_dir
        return (
            [p for p in sorted(labels.iterdir()) if p.is_dir() and is_tag(p.name)] if labels.is_dir() else []
        )

    def _write(self, state: FolderState) -> FolderState:
        if state is not self._state or not self.file.is_file():
            write_durably(self.file, state.to_bytes())
            self._state = state
            self._look()
        return state

    def _stamps(self) -> tuple[int, ...]:
        """When folders and state were last changed."""
        labels = self.folder / self._state.labels_dir
        paths = [self.file, self.folder / self._state.images_dir, labels, *self._tags(self._state)]
        return tuple(p.stat().st_mtime_ns if p.exists() else 0 for p in paths)

    def _look(self) -> None:
        """Remember how the folder looks, unless it changed so recently that the next change might look the same."""
        stamps = self._stamps()
        self._seen = stamps if max(stamps) < time.time_ns() - _TICK_NS else None


def _is_image(path: Path) -> bool:
    """A file, or the folder `NAME.dicom` of a series."""
    return path.is_file() or (path.name.endswith(SERIES) and path.is_dir())


def _new(name: str, image_id: str) -> StoredFile:
    return StoredFile(name.removeprefix(image_id), {"ts": int(time.time()), "name": name})
