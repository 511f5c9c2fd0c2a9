# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Images that were read, kept while they are worked on; a file that changed is read again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_effsam.data.io import Image, read_image
from monai_effsam.errors import DataError
from monai_effsam.inference.embedding_cache import embedding_key
from monai_effsam.inference.modality import ToldModality, looks_like
from monai_effsam.labelling.geometry import StoredGrid, across, stored_grid
from monai_effsam.specs import ImageSpec

__all__ = ["ImageShelf", "OpenedImage"]


class OpenedImage:
    """An image with what each request asks of it again: its grid, its other cut, the keys of its slices.

    Args:
        image: as read.
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        self._keys: dict[tuple[Any, ...], str] = {}
        self._lock = threading.Lock()

    @cached_property
    def grid(self) -> StoredGrid:
        """As viewers see it."""
        return stored_grid(self.image)

    @cached_property
    def along_k(self) -> OpenedImage:
        """Itself, cut across the last axis of the file: the slices of a viewer's 2D tools."""
        cut = across(self.image)
        return self if cut is self.image else OpenedImage(cut)

    @cached_property
    def looks_like(self) -> ToldModality:
        """What the router makes of it; no modality where it looks like none, or no router ships."""
        return looks_like(self.image)

    def told(self, given: str | None, known: Collection[str], *, look: bool = True) -> ToldModality:
        """What the file says, else what was given for the store or the server, else what it looks like.

        Args:
            given: modality of images that do not tell it.
            known: modalities of the model; others count as not told.
            look: whether the router is asked at all.
        """
        for name, source in ((self.image.modality, "dicom"), (given, "caller")):
            if name is not None and name in known:
                return ToldModality(name, source)
        looks = self.looks_like if look else ToldModality(None)
        return looks if looks.modality in known else ToldModality(None)

    def key(self, index: int, identity: str, spec: ImageSpec, modality: str | None) -> str:
        """`embedding_key` of a slice; pixels are hashed once."""
        asked = (index, identity, spec, modality)
        with self._lock:
            known = self._keys.get(asked)
        if known is None:
            known = embedding_key(self.image, index, identity, spec, modality)
            with self._lock:
                self._keys[asked] = known
        return known


class ImageShelf:
    """The images that were used last, bounded in bytes (but at least one). Safe between threads.

    Args:
        most_bytes: what their pixels may take.
        read: opens a path, given the modality that is known; `read_image` by default.
    """

    def __init__(
        self, most_bytes: int = 256 << 20, read: Callable[[Path, str | None], Image] | None = None
    ) -> None:
        self.most_bytes = most_bytes
        self._read = read or _read
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, ...], OpenedImage] = OrderedDict()
        self._reading: dict[tuple[Any, ...], threading.Lock] = {}

    def open(self, path: Path, modality: str | None = None) -> OpenedImage:
        """An image, read unless it is here already.

        Args:
            path: of a file, or of the folder of a DICOM series.
            modality: what is known of it; decides how grey values of volumes are scaled.

        Raises:
            DataError: it cannot be read.
        """
        key = (_signature(path), modality)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            try:
                opened = OpenedImage(self._read(path, modality))
                with self._lock:
                    self._kept[key] = opened
                    size = sum(kept.image.slices.nbytes for kept in self._kept.values())
                    while size > self.most_bytes and len(self._kept) > 1:
                        size -= self._kept.popitem(last=False)[1].image.slices.nbytes
            finally:
                with self._lock:
                    self._reading.pop(key, None)
        return opened


def _read(path: Path, modality: str | None) -> Image:
    return read_image(path, modality=modality)


def _signature(path: Path) -> tuple[Any, ...]:
    """What changes when a file does, or any file of a folder but the hidden ones, which are a store's own marks.

    Raises:
        DataError: it is not there.
    """
    try:
        files = sorted(p for p in path.iterdir() if p.name[0] != ".") if path.is_dir() else [path]
        stats = [file.stat() for file in files]
    except OSError as error:
        raise DataError(
            f"{path.name}: image cannot be opened: {error.strerror}. Check that it is there."
        ) from error
    told = tuple((s.st_size, s.st_mtime_ns, s.st_ino) for s in stats)
    return (str(path), told)
