# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""From a request on an image to a mask: models, caches and the image shelf, shared by all threads of a server.

Nothing about a user is kept between requests; what is kept (pixels, encodings) is found by content and never changed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.inference.answers import Decoding, results_of
from monai_effsam.inference.embedding_cache import EmbeddingCache
from monai_effsam.inference.modality import ToldModality, unknown_modality
from monai_effsam.inference.model_path import default_model_path, shipped_models
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.labelling.ahead import WorkAhead
from monai_effsam.labelling.answers import LabellingAnswer, seconds_of
from monai_effsam.labelling.following import outline_volume
from monai_effsam.labelling.images import ImageShelf, OpenedImage
from monai_effsam.labelling.models import EncodingDesk, ServedModel
from monai_effsam.labelling.prompted_image import PromptedImage
from monai_effsam.labelling.prompting import prompts_of, slice_of
from monai_effsam.labelling.requests import Clicks
from monai_effsam.targets import Target, narrowed_targets

__all__ = ["LabellingAnswer", "LabellingService"]

logger = logging.getLogger(__name__)

PROMPTED_MODEL = "kd_sam"
"""Bundle that answers clicks where no other is named."""


class LabellingService:
    """Answers requests of many users at once.

    Args:
        model: self-prompting model: a path, or a segmenter that is open; None for the one that ships.
        prompted_model: the model for clicks and boxes; None for the one that ships.
        modality: of images that do not tell theirs; None lets the router look at them.
        targets: names of those that are labelled here; all by default. A modality of which none is named keeps all.
        cache: of encodings; None for one in memory.
        shelf: of images; None for one of the usual size.
        device: where networks compute.

    Raises:
        WeightsError: a model is missing or cannot be loaded.
        UnknownNameError: the model does not know the modality, or a target.
    """

    def __init__(
        self,
        model: Path | Segmenter | None = None,
        prompted_model: Path | Segmenter | None = None,
        *,
        modality: str | None = None,
        targets: Collection[str] = (),
        cache: EmbeddingCache | None = None,
        shelf: ImageShelf | None = None,
        device: str = "cpu",
    ) -> None:
        self.modality, self._device = modality or None, device
        self.cache = cache or EmbeddingCache()
        self.shelf = shelf or ImageShelf()
        self._desk = EncodingDesk(self.cache)
        self._ahead = WorkAhead(lambda: self._desk.busy)
        self._automatic = self._opened(model if model is not None else default_model_path())
        self._prompted = self._opened(
            prompted_model
            if prompted_model is not None
            else shipped_models().get(PROMPTED_MODEL, self._automatic)
        )
        if self.modality is not None:
            self._automatic.segmenter.modality_index(self.modality)
        self.wanted = frozenset(targets)
        known = {target.name for target in self._automatic.segmenter.model.targets}
        for name in sorted(self.wanted - known):
            raise UnknownNameError("target", name, sorted(known))

    def _opened(self, model: Path | Segmenter | ServedModel) -> ServedModel:
        if isinstance(model, ServedModel):
            return model
        return (
            ServedModel.of(model) if isinstance(model, Segmenter) else ServedModel.open(model, self._device)
        )

    @property
    def model(self) -> ServedModel:
        """The model that prompts itself, of this moment."""
        return self._automatic

    @property
    def prompted_model(self) -> ServedModel:
        """The model for clicks and boxes, of this moment."""
        return self._prompted

    def use_model(self, path: Path) -> None:
        """Answer with another model from now on; requests under way finish with the one that they began with.

        A promptable model takes the place of the one for clicks, a self-prompting one that of the other.

        Raises:
            WeightsError: no model, or one that cannot be loaded; the old one stays.
            UnknownNameError: it does not know the modality of this service.
        """
        new = ServedModel.open(path, self._device)
        if new.segmenter.promptable:
            self._prompted = new
            return
        if self.modality is not None:
            new.segmenter.modality_index(self.modality)
        self._automatic = new

    def targets(self, modality: str | None = None) -> tuple[Target, ...]:
        """What the automatic task outlines: targets of a modality or of this service's, else of all, each name once."""
        table, known = self._automatic.segmenter.model.targets, modality or self.modality
        if known is not None:
            return narrowed_targets(known, self.wanted, table)
        every = (t for m in {t.modality: 0 for t in table} for t in narrowed_targets(m, self.wanted, table))
        return tuple({target.name: target for target in every}.values())

    def automatic(
        self, path: Path, *, modality: str | None = None, targets: Sequence[str] | None = None
    ) -> LabellingAnswer:
        """Outline the targets of an image's modality, without a prompt.

        Args:
            path: of the image.
            modality: what the store knows; a DICOM file's own word comes first, then this, then this service's, and
                what the picture looks like last.
            targets: names of those wanted, of all that are labelled here by default.

        Raises:
            DataError: the image cannot be read.
            UnknownNameError: no such modality or target.
            UsageError: nobody knows the modality and the picture looks like none, or a target is of another.
        """
        start = time.perf_counter()
        model = self._automatic
        opened = self.shelf.open(path, modality or self.modality)
        image, told = opened.image, self._told(model, opened, modality)
        known = told.modality
        ms = {"read": (time.perf_counter() - start) * 1000}
        if known is None:
            words = unknown_modality(
                image.name, model.segmenter.modalities, "the picture looks like none of them"
            )
            raise UsageError(words.replace("Give --modality.", "Start the server with --modality."))
        if targets is None:
            targets = [t.name for t in narrowed_targets(known, self.wanted, model.segmenter.model.targets)]
        mask = np.zeros((len(image), *image.size), np.uint8)
        parts: list[Decoding] = []
        for index in range(len(image)):
            encoding = self._desk.encoding(model, opened, index, known, ms)
            parts.append(self._desk.decoding(model, encoding, ms, targets=targets))
            mask[index] = parts[-1].mask[0]
        found = results_of(image, mask, parts)
        return LabellingAnswer(
            opened,
            mask,
            {result.name: result.value for result in sorted(found, key=lambda r: r.value) if result.found},
            {result.name: round(result.quality, 4) for result in found},
            seconds_of(ms, start),
            told,
        )

    def prompted_2d(
        self, path: Path, clicks: Clicks, *, modality: str | None = None, label: str | None = None
    ) -> LabellingAnswer:
        """Outline what clicks and a box show in one slice across the last axis of the file.

        Args:
            path: of the image.
            clicks: points of other slices than the one looked at are passed over.
            modality: as of `automatic`; may stay unknown.
            label: what the user calls it. A name that only the self-prompting model knows is outlined by that one.

        Raises:
            DataError: the image cannot be read.
            UsageError: a slice or a prompt outside of the image.
        """
        start = time.perf_counter()
        asked = self._asked(path, modality, label, along_k=True)
        image = asked.opened.image
        mask = np.zeros((len(image), *image.size), np.uint8)
        index = slice_of(image, clicks)
        prompts = None if index is None else prompts_of(image, clicks, index)
        quality = None
        if index is not None and prompts is not None:
            found = asked.outline(index, prompts)
            mask[index], quality = found.mask, found.quality
        return asked.answer(mask, quality, start)

    def prompted_3d(
        self, path: Path, clicks: Clicks, *, modality: str | None = None, label: str | None = None
    ) -> LabellingAnswer:
        """Outline what clicks and a region show in a volume, followed through the slices around the prompted ones.

        Arguments and errors as of `prompted_2d`; points count in the slices that they lie in.
        """
        start = time.perf_counter()
        asked = self._asked(path, modality, label)
        mask, quality = outline_volume(asked.opened.image, clicks, asked.outline)
        return asked.answer(mask.astype(np.uint8), quality, start)

    def _asked(
        self, path: Path, modality: str | None, label: str | None, *, along_k: bool = False
    ) -> PromptedImage:
        """The image of a prompt, and the model that knows best what the label means."""
        start = time.perf_counter()
        opened = self.shelf.open(path, modality or self.modality)
        opened = opened.along_k if along_k else opened
        model, other = self._prompted, self._automatic
        told = self._told(model, opened, modality)
        if label is not None and not _knows(model, told.modality, label):
            elsewhere = self._told(other, opened, modality)
            if elsewhere.modality is not None and _knows(other, elsewhere.modality, label):
                model, told = other, elsewhere
        ms = {"read": (time.perf_counter() - start) * 1000}
        return PromptedImage(self._desk, model, opened, told, label, ms)

    def prepare(self, path: Path | Callable[[], Path], *, modality: str | None = None) -> None:
        """Encode an image that will be asked for soon, in the background, for masks without clicks and for clicks.

        Returns at once; an image that cannot be read is passed over. A later call replaces an earlier one.

        Args:
            path: of the image, or a function that may take its time to fetch it.
            modality: as of `automatic`.
        """

        def steps() -> Iterator[None]:
            opened = self.shelf.open(path() if callable(path) else path, modality or self.modality)
            for model in (self._automatic, self._prompted):
                known = self._told(model, opened, modality).modality
                if known is None and not model.segmenter.promptable:
                    continue
                for index in range(len(opened.image)):
                    yield
                    self._desk.ahead(model, opened, index, known)

        self._ahead.start(steps)

    def request(self) -> AbstractContextManager[None]:
        """Around a request, so that the background steps back until it is answered."""
        return self._desk.request()

    @property
    def busy(self) -> bool:
        """Whether a request is at work."""
        return self._desk.busy

    def prepared(self, seconds: float) -> bool:
        """Wait for what `prepare` began; whether it is done."""
        return self._ahead.wait(seconds)

    def close(self) -> None:
        """End the background thread."""
        self._ahead.close()

    def _told(self, model: ServedModel, opened: OpenedImage, modality: str | None) -> ToldModality:
        """What is told of an image, or what it looks like to a model that needs a modality."""
        look = not model.segmenter.promptable
        return opened.told(modality or self.modality, model.segmenter.modalities, look=look)


def _knows(model: ServedModel, modality: str | None, label: str) -> bool:
    table = model.segmenter.model.targets
    return any(target.name == label and modality in (None, target.modality) for target in table)
