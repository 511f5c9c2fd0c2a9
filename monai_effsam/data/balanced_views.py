# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Batches of views for a student whose modalities have sizes of their own, its sets balanced as in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from monai_effsam.data.distilling import DistillationBatches, EmbeddingSource, ViewBatch
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.data.strata import Strata
from monai_effsam.specs import ImageSpec, spec_of

__all__ = ["BalancedViews"]


class BalancedViews(DistillationBatches):
    """Endless balanced batches of views, an epoch at a time.

    A step draws a model size, then for each item one of the modalities of that size, a stratum of it, a slice and a
    view: modalities are mixed in a batch as far as their sizes allow. The batches are a pure function of
    (seed, rank, step).

    Args:
        slices: to draw from.
        specs: of the student, one for each modality.
        source: gives embeddings.
        modalities: of the student, in its order.
        weights: share of each set or stratum, as of `Strata`.
        views: number of views of each slice; 1 for the picture alone.
        batch_area: pixels a batch, at least two pictures.
        epoch_length: steps an epoch.
        seed: of everything random here.
        rank: of this process.

    Raises:
        DataError: there are no slices, or none whose set has a weight.
    """

    def __init__(  # noqa: PLR0913  one flat list, as in a recipe
        self,
        slices: Sequence[LabelledSlice],
        specs: Mapping[str, ImageSpec],
        source: EmbeddingSource,
        *,
        modalities: Sequence[str],
        weights: Mapping[str, float] | None = None,
        views: int = 4,
        batch_area: int = 8 * 320 * 320,
        epoch_length: int = 100,
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        super().__init__(slices, specs, source, modalities=modalities, views=views, seed=seed)
        self.batch_area, self.epoch_length, self.rank = batch_area, epoch_length, rank
        self.strata = Strata(slices, modalities, weights=weights)

    def __len__(self) -> int:
        """Steps an epoch."""
        return self.epoch_length

    def __iter__(self) -> Iterator[ViewBatch]:
        """The batches of the current `epoch`."""
        for step in range(self.epoch * self.epoch_length, (self.epoch + 1) * self.epoch_length):
            yield self.collate([self.view(*pair) for pair in self.drawn(step)])

    def drawn(self, step: int) -> list[tuple[int, int]]:
        """(slice, view) of each item of a step's batch, the same whenever it is asked for."""
        weight = np.array([self.strata.weight(m) for m in self.modalities])
        # all ranks draw the same size, so that none waits for another's larger pictures
        shared = np.random.RandomState([self.seed, step])
        first = self.modalities[shared.choice(len(weight), p=weight / weight.sum())]
        sizes = np.array([spec_of(self.specs, m).size for m in self.modalities])
        size = spec_of(self.specs, first).size
        share = weight * (sizes == size)
        random = np.random.RandomState([self.seed, self.rank, step])
        pairs = []
        for _ in range(max(2, round(self.batch_area / size**2))):
            modality = self.modalities[random.choice(len(share), p=share / share.sum())]
            pairs.append((self.strata.draw(modality, random), int(random.randint(self.views))))
        return pairs
