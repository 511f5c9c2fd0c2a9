# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Slices that were encoded once: in memory, and in files that outlive the process; both bounded in bytes.

Keys tell what an encoding depends on, the pixels and not where they lie, so a renamed file is found and a changed one
is not. Files are safetensors: nothing that could run code. Several threads and processes share a folder; a file
appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monai_effsam.data.io.write import atomic_path
from monai_effsam.errors import DataError, UsageError
from monai_effsam.inference.answers import Encoding
from monai_effsam.inference.encoding_file import encoding_bytes, pack_encoding, unpack_encoding

if TYPE_CHECKING:
    from monai_effsam.data.io import Image
    from monai_effsam.inference.segmenter import Segmenter
    from monai_effsam.specs import ImageSpec

__all__ = ["CacheStats", "EmbeddingCache", "embedding_key", "encoder_identity"]

logger = logging.getLogger(__name__)

_ENDING = ".safetensors"
_ABANDONED = 3600.0  # a file half written for so long has no writer any more [s]
_RECOUNT = 64  # writes after which a folder is listed again: other processes fill it too


class CacheStats(NamedTuple):
    """What a cache did and holds.

    Attributes:
        hits: encodings found, in memory or on disk.
        disk_hits: those of them that came from disk.
        misses: encodings not found.
        entries: encodings in memory.
        memory_bytes: their size.
        disk_bytes: size of the folder as this process last knew it.
    """

    hits: int
    disk_hits: int
    misses: int
    entries: int
    memory_bytes: int
    disk_bytes: int


def embedding_key(
    image: Image, index: int, model_sha: str, spec: ImageSpec, modality: str | None = None
) -> str:
    """Key of one slice's encoding by all that it depends on.

    Args:
        image: from `data.io.read_image`.
        index: of the slice.
        model_sha: tells the encoder, its weights and its runtime: `encoder_identity`.
        spec: what the encoder is given of the picture.
        modality: name of it, which self-prompting encoders are told.

    Returns:
        64 hexadecimal digits.
    """
    pixels = np.ascontiguousarray(image.slices[index])
    told = json.dumps([model_sha, spec.to_json(), modality, pixels.shape], sort_keys=True)
    digest = hashlib.sha256(told.encode())
    digest.update(pixels.data)
    return digest.hexdigest()


def encoder_identity(segmenter: Segmenter) -> str:
    """What tells a segmenter's encoder from all others: its weights, runtime and device.

    A network whose decoder alone was trained further has the same identity, and finds what was encoded before.
    """
    from monai_effsam.inference.runtimes.exported import sha256_of

    network = getattr(segmenter.runtime, "network", None)
    encoder = getattr(network, "encoder", None) or getattr(network, "image_encoder", None)
    if encoder is not None and hasattr(encoder, "state_dict"):
        digest = hashlib.sha256()
        for name, value in encoder.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        weights = digest.hexdigest()
    else:
        weights = str(segmenter.model.card.get("sha256") or sha256_of(segmenter.model.path))
    return f"{weights} {segmenter.runtime.name} {segmenter.device}"


class EmbeddingCache:
    """Encodings by key: those used last in memory, more of them in a folder. Safe between threads and processes.

    Args:
        folder: for files, made where it is missing; None keeps nothing beyond the process.
        memory_bytes: what the encodings in memory may take.
        disk_bytes: what the files may take.

    Raises:
        UsageError: a bound below zero.
        DataError: the folder cannot be made.
    """

    def __init__(
        self, folder: Path | None = None, *, memory_bytes: int = 512 << 20, disk_bytes: int = 4 << 30
    ) -> None:
        if min(memory_bytes, disk_bytes) < 0:
            raise UsageError(
                f"EmbeddingCache: bounds are {memory_bytes} and {disk_bytes} bytes, expected 0 or more. Raise them."
            )
        self.folder, self.memory_bytes, self.disk_bytes = folder, memory_bytes, disk_bytes
        self._lock, self._disk_lock = threading.Lock(), threading.Lock()
        self._kept: OrderedDict[str, tuple[Encoding, int]] = OrderedDict()
        self._size = self._on_disk = self._hits = self._disk_hits = self._misses = 0
        self._writes = 0
        if folder is not None:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(
                    f"{folder}: cache folder cannot be made: {error.strerror}. Choose another."
                ) from error
            self._tidy()

    @property
    def stats(self) -> CacheStats:
        """Counts and sizes, of this moment."""
        with self._lock:
            return CacheStats(
                self._hits, self._disk_hits, self._misses, len(self._kept), self._size, self._on_disk
            )

    def get(self, key: str) -> Encoding | None:
        """The encoding of a key, or None; what comes from disk is kept in memory."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                self._hits += 1
                return self._kept[key][0]
        found = self._load(key)
        with self._lock:
            if found is None:
                self._misses += 1
            else:
                self._hits += 1
                self._disk_hits += 1
        if found is not None:
            self._keep(key, found)
        return found

    def __contains__(self, key: str) -> bool:
        """Whether `get` would most probably find it; counts nothing and moves nothing."""
        with self._lock:
            if key in self._kept:
                return True
        return self.folder is not None and self._path(key).exists()

    def put(self, key: str, encoding: Encoding) -> None:
        """Keep an encoding; one that cannot be written is kept in memory, with a word in the log."""
        self._keep(key, encoding)
        if self.folder is None or not self.disk_bytes:
            return
        content = pack_encoding(encoding)
        if content is None or len(content) > self.disk_bytes:
            return
        path = self._path(key)
        try:
            if path.exists():
                return
            with atomic_path(path) as beside:
                beside.write_bytes(content)
        except (DataError, OSError) as error:
            logger.warning("embedding not stored: %s", error)
            return
        with self._disk_lock:
            self._on_disk += len(content)
            self._writes += 1
            crowded = self._on_disk > self.disk_bytes or self._writes % _RECOUNT == 0
        if crowded:
            self._tidy()

    def clear(self) -> None:
        """Forget everything, files too."""
        with self._lock:
            self._kept.clear()
            self._size = 0
        with self._disk_lock:
            for file in self._files():
                with suppress(OSError):
                    file.unlink()
            self._on_disk = 0

    def _keep(self, key: str, encoding: Encoding) -> None:
        size = encoding_bytes(encoding)
        with self._lock:
            if key in self._kept:
                self._size -= self._kept.pop(key)[1]
            if size > self.memory_bytes:
                return
            self._kept[key] = (encoding, size)
            self._size += size
            while self._size > self.memory_bytes:
                self._size -= self._kept.popitem(last=False)[1][1]

    def _load(self, key: str) -> Encoding | None:
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            content = path.read_bytes()
            with suppress(OSError):
                os.utime(path)  # used last
        except OSError:
            return None
        found = unpack_encoding(content)
        if found is None:  # damaged, or of another version
            with suppress(OSError):
                path.unlink()
        return found

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}{_ENDING}"

    def _files(self) -> list[Path]:
        return [] if self.folder is None else list(self.folder.glob(f"*{_ENDING}"))

    def _tidy(self) -> None:
        """Count the folder; where it is too full, drop the files that were used longest ago, to nine tenths."""
        with self._disk_lock:
            files = []
            for file in self._files():
                with suppress(OSError):  # another process dropped it
                    stat = file.stat()
                    if not file.name.startswith("."):
                        files.append((stat.st_mtime_ns, stat.st_size, file))
                    elif time.time() - stat.st_mtime > _ABANDONED:
                        file.unlink()
            total = sum(size for _, size, _ in files)
            if total > self.disk_bytes:
                for _, size, file in sorted(files):
                    if total <= self.disk_bytes * 9 // 10:
                        break
                    with suppress(OSError):
                        file.unlink()
                    total -= size
            self._on_disk = total
