# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The models that answer, and the one way to a slice's encoding: looked up, or made by one thread at a time."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from monai_effsam.errors import EffsamError
from monai_effsam.inference.answers import Decoding, Encoding
from monai_effsam.inference.embedding_cache import EmbeddingCache, encoder_identity
from monai_effsam.inference.runtimes.exported import is_exported, read_exported
from monai_effsam.inference.runtimes.machine import usable_cores
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.labelling.images import OpenedImage
from monai_effsam.specs import Prompts, spec_of

__all__ = ["EncodingDesk", "ServedModel", "exported_beside"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready to answer.

    Args:
        segmenter: it.
        identity: what tells its encoder from others.
        path: where it came from.
    """

    segmenter: Segmenter
    identity: str
    path: Path | None = None

    @classmethod
    def open(cls, path: Path, device: str = "cpu") -> ServedModel:
        """A model of a path: as exported where an export of the same weights lies beside, else in torch.

        Raises:
            WeightsError: no model, or one that cannot be loaded.
            UsageError: a device that cannot be used.
        """
        beside = exported_beside(path)
        return cls.of(Segmenter.open(beside or path, device=device), path)

    @classmethod
    def of(cls, segmenter: Segmenter, path: Path | None = None) -> ServedModel:
        """A segmenter that is open already."""
        return cls(segmenter, encoder_identity(segmenter), path)


def exported_beside(path: Path) -> Path | None:
    """`exported` beside a model's weights, if it was made of these; None where there is no such folder."""
    if is_exported(path):
        return None
    folder = path if path.is_dir() else path.parent
    for place in (folder / "exported", folder / "models" / "exported"):
        if is_exported(place):
            try:
                source = read_exported(place).card.get("sha256")
            except EffsamError as error:
                logger.warning("%s is passed over: %s", place.name, error)
                continue
            if source and source == _sha256(path):
                return place
    return None


def _sha256(path: Path) -> str | None:
    folders = (path, path / "models")
    cards = [path.with_suffix(".json"), *(folder / "model.json" for folder in folders)]
    for card in cards:
        if card.is_file():
            told = json.loads(card.read_text(encoding="utf-8")).get("sha256")
            return str(told) if told else None
    return None


class EncodingDesk:
    """Encodings of slices from a cache, made where they are missing: one at a time, requests before work ahead.

    Args:
        cache: where they are kept.
    """

    def __init__(self, cache: EmbeddingCache) -> None:
        self.cache = cache
        self._encoder = threading.Lock()
        self._cores = threading.BoundedSemaphore(usable_cores())
        self._requests = 0
        self._counting = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a request is at work."""
        return self._requests > 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around a request, so that work ahead steps back."""
        with self._counting:
            self._requests += 1
        try:
            yield
        finally:
            with self._counting:
                self._requests -= 1

    def encoding(
        self, model: ServedModel, opened: OpenedImage, index: int, modality: str | None, ms: dict[str, float]
    ) -> Encoding:
        """The encoding of one slice.

        Args:
            model: whose.
            opened: image.
            index: of the slice.
            modality: as the model is told.
            ms: gets the time spent, by stage [ms].

        Raises:
            UnknownNameError: the model does not know the modality.
            UsageError: no modality, though the model is self-prompting.
        """
        start = time.perf_counter()
        model.segmenter.modality_index(modality)  # refuses what would only fail deep inside
        key = opened.key(index, model.identity, spec_of(model.segmenter.model.specs, modality), modality)
        found = self.cache.get(key)
        _add(ms, {"key": (time.perf_counter() - start) * 1000})
        if found is not None:
            return found
        with self._encoder:
            found = self.cache.get(key) if key in self.cache else None  # another thread made it meanwhile
            if found is None:
                with self._cores:
                    found = model.segmenter.encode(opened.image, index, modality)
                _add(ms, found.ms)
                self.cache.put(key, found)
        return found

    def decoding(
        self,
        model: ServedModel,
        encoding: Encoding,
        ms: dict[str, float],
        *,
        targets: Sequence[str] | None = None,
        prompts: Prompts | None = None,
    ) -> Decoding:
        """`Segmenter.decode`, no more at once than there are cores; arguments and errors are its own."""
        with self._cores:
            found = model.segmenter.decode(encoding, targets=targets, prompts=prompts)
        _add(ms, found.ms)
        return found

    def ahead(self, model: ServedModel, opened: OpenedImage, index: int, modality: str | None) -> None:
        """Make an encoding that nobody waits for; no request ever waits for this one."""
        key = opened.key(index, model.identity, spec_of(model.segmenter.model.specs, modality), modality)
        if key not in self.cache:
            self.cache.put(key, model.segmenter.encode(opened.image, index, modality))


def _add(total: dict[str, float], more: Mapping[str, float]) -> None:
    for stage, spent in more.items():
        total[stage] = total.get(stage, 0.0) + spent
