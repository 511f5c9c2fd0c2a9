# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Batches for the modality router: known and foreign pictures in fixed shares, each step a pure function of
(seed, rank, step), so that an interrupted training continues with the very batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import IterableDataset

from monai_effsam.data.placement import apply_spec
from monai_effsam.data.routing.foreign import drawn_picture
from monai_effsam.data.routing.pictures import ModalityPicture
from monai_effsam.data.routing.views import GENTLE, routing_view
from monai_effsam.errors import DataError
from monai_effsam.specs import ImageSpec

__all__ = ["ClassBatch", "RoutingBatches"]


@dataclass(frozen=True, slots=True)
class ClassBatch:
    """Images and their classes: image (B, 3, H, W) float32, target (B,) int64 or (B, K) float32 of probabilities."""

    image: Tensor
    target: Tensor

    def to(self, device: torch.device | str) -> ClassBatch:
        """The same on a device."""
        return ClassBatch(self.image.to(device), self.target.to(device))


class RoutingBatches(IterableDataset[ClassBatch]):
    """Endless batches of views, an epoch at a time.

    An item is foreign with probability `foreign`; half of these are drawn anew, half are views of photographs. Else a
    modality is drawn, then one of its sources by the square root of its size, then a picture.

    Args:
        pictures: known ones.
        photographs: foreign ones, of the family to learn; without any all foreign pictures are drawn.
        modalities: names, in the order of the network's classes; foreign pictures are the class after the last.
        spec: how the network wants its input.
        batch: pictures.
        epoch_length: steps an epoch.
        foreign: share of foreign pictures.
        seed: of everything random here.
        rank: of this process.
        warm_steps: so many steps see pictures of `warm_size`.
        warm_size: side of those [px].
        gentle_from: step from which views are gentle ones, closer to what users bring.
        mix: share of the views that are blended with another of their batch, and their targets likewise; with any,
            targets are probabilities.
        smoothing: share of such a target that is spread over all classes.

    Raises:
        DataError: a modality has no picture.
    """

    def __init__(  # noqa: PLR0913  one flat list, as in a recipe
        self,
        pictures: Sequence[ModalityPicture],
        photographs: Sequence[ModalityPicture],
        modalities: Sequence[str],
        spec: ImageSpec,
        *,
        batch: int = 32,
        epoch_length: int = 100,
        foreign: float = 0.25,
        seed: int = 0,
        rank: int = 0,
        warm_steps: int = 0,
        warm_size: int = 64,
        gentle_from: int | None = None,
        mix: float = 0.0,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.photographs, self.modalities, self.spec = list(photographs), tuple(modalities), spec
        self.batch_size, self.epoch_length, self.foreign = batch, epoch_length, foreign
        self.seed, self.rank, self.epoch = seed, rank, 0
        self.warm_steps, self.warm_size, self.gentle_from = warm_steps, warm_size, gentle_from
        self.mix, self.smoothing = mix, smoothing
        self.sources: list[list[list[ModalityPicture]]] = []
        for name in self.modalities:
            by_source: dict[str, list[ModalityPicture]] = {}
            for picture in pictures:
                if picture.modality == name:
                    by_source.setdefault(picture.source, []).append(picture)
            if not by_source:
                raise DataError(f"router: no picture of {name}, expected at least one. Add a set of {name}.")
            self.sources.append(list(by_source.values()))

    def __len__(self) -> int:
        """Steps an epoch."""
        return self.epoch_length

    def __iter__(self) -> Iterator[ClassBatch]:
        """The batches of the current `epoch`."""
        for step in range(self.epoch * self.epoch_length, (self.epoch + 1) * self.epoch_length):
            yield self.batch(step)

    def batch(self, step: int) -> ClassBatch:
        """The batch of one step."""
        random = np.random.RandomState([self.seed, self.rank, step])
        spec = replace(self.spec, size=self.warm_size) if step < self.warm_steps else self.spec
        chances = None if self.gentle_from is None or step < self.gentle_from else GENTLE
        images, classes = [], []
        for _ in range(self.batch_size):
            picture, number = self._draw(random)
            view = routing_view(picture.image, random, spec.size, chances, picture.modality)
            images.append(apply_spec(view, spec)[0])
            classes.append(number)
        batch = ClassBatch(torch.from_numpy(np.stack(images)), torch.tensor(classes))
        return self._mixed(batch, random) if self.mix else batch

    def _mixed(self, batch: ClassBatch, random: np.random.RandomState) -> ClassBatch:
        """Some views blended with the next one: Zhang et al., "mixup", 2018; the first keeps at least half."""
        count, classes = len(batch.target), len(self.modalities) + 1
        own = np.where(random.rand(count) < self.mix, random.uniform(0.5, 1, count), 1)
        share = torch.tensor(own, dtype=torch.float32)
        hard = F.one_hot(batch.target, classes) * (1 - self.smoothing) + self.smoothing / classes
        image = share.view(-1, 1, 1, 1) * batch.image + (1 - share).view(-1, 1, 1, 1) * batch.image.roll(1, 0)
        return ClassBatch(image, share[:, None] * hard + (1 - share[:, None]) * hard.roll(1, 0))

    def _draw(self, random: np.random.RandomState) -> tuple[ModalityPicture, int]:
        """A picture and its class."""
        if random.rand() < self.foreign:
            if self.photographs and random.rand() < 0.5:
                picture = self.photographs[random.randint(len(self.photographs))]
            else:
                picture = drawn_picture("learned", random)
            return picture, len(self.modalities)
        number = random.randint(len(self.modalities))
        sources = self.sources[number]
        share = np.sqrt([len(source) for source in sources])
        chosen = sources[random.choice(len(sources), p=share / share.sum())]
        return chosen[random.randint(len(chosen))], number
