# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Batches to distil on: views as the student sees them, and what a teacher makes of the very same views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from monai_effsam.data.alignment import align_embedding, picture_cells
from monai_effsam.data.placement import apply_spec
from monai_effsam.data.slices import LabelledSlice, resized_label
from monai_effsam.data.views import View, make_view
from monai_effsam.errors import DataError
from monai_effsam.specs import ImageSpec, Placement, spec_of

__all__ = ["EMBEDDING", "DistillationBatches", "EmbeddingSource", "ViewBatch"]

EMBEDDING = "embedding"
"""Name of the image embedding, (C, h, w), among the arrays that a teacher gives for a view."""


class EmbeddingSource(Protocol):
    """A teacher as the batches see it: how it wants its input, and what it makes of views."""

    specs: Mapping[str, ImageSpec]

    def arrays(self, views: Sequence[View]) -> Sequence[Mapping[str, NDArray[Any]]]:
        """Arrays of each view by name, `EMBEDDING` among them."""


@dataclass(frozen=True, slots=True)
class ViewBatch:
    """B views, in the student's frame; modalities may be mixed.

    Args:
        image: (B, 3, S, S) float32, or (B, 3, 0, 0) where only embeddings are wanted.
        modality: index of each view's modality among the student's, (B,) int64; 0 without controllers.
        target: the source's embedding on the student's grid, (B, C, h, w); C is 0 without a source.
        valid: 1 where a cell shows the picture and not its padding, (B, 1, h, w).
        label: (B, T, S, S) float32, one channel a target; T is 0 where labels are not wanted.
        known: (B, T) bool, whether the label speaks of a target.
        saliency: the source's map of that name on the student's grid, (B, h, w); empty where none is wanted.
    """

    image: Tensor
    modality: Tensor
    target: Tensor
    valid: Tensor
    label: Tensor
    known: Tensor
    saliency: Tensor = field(default_factory=lambda: torch.zeros(0))

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        return type(self)(*(getattr(self, f.name).to(device) for f in fields(self)))


class DistillationBatches(IterableDataset[ViewBatch]):
    """Batches of views, an epoch at a time; an epoch shows every picture once, in a view drawn by chance.

    The batches are a pure function of (seed, epoch), so that an interrupted run goes on with those that it would have
    seen.

    Args:
        pictures: to draw from.
        specs: of the student, all of one size and stride.
        source: gives embeddings; None for none.
        rows: indices of the pictures to use; None for all.
        modalities: of the student's encoder; empty without controllers.
        views: number of views of each picture; 1 for the picture alone.
        batch: views a batch.
        images: whether the student's input is wanted.
        labels: whether labels are wanted.
        shuffle: draw order and views; otherwise every picture comes in order, as it is.
        seed: of the order.
        view_seed: of the views; runs that share a cache share it.
        saliency: name of the source's map that is wanted beside the embedding.

    Raises:
        DataError: no pictures.
    """

    def __init__(  # noqa: PLR0913  one flat list, as in a recipe
        self,
        pictures: Sequence[LabelledSlice],
        specs: Mapping[str, ImageSpec],
        source: EmbeddingSource | None,
        *,
        rows: Sequence[int] | None = None,
        modalities: Sequence[str] = (),
        views: int = 1,
        batch: int = 8,
        images: bool = True,
        labels: bool = False,
        shuffle: bool = True,
        seed: int = 0,
        view_seed: int = 0,
        saliency: str | None = None,
    ) -> None:
        super().__init__()
        self.pictures, self.specs, self.source = pictures, specs, source
        self.rows = list(range(len(pictures)) if rows is None else rows)
        if not self.rows:
            raise DataError("DistillationBatches: no pictures, expected at least one. Add some.")
        self.modalities, self.views, self.size = tuple(modalities), views, batch
        self.images, self.labels, self.shuffle, self.saliency = images, labels, shuffle, saliency
        self.seed, self.view_seed, self.epoch = seed, view_seed, 0

    def __len__(self) -> int:
        """Batches an epoch; what is left over is left out of a shuffled one."""
        whole = len(self.rows) // self.size if self.shuffle else -(-len(self.rows) // self.size)
        return max(1, whole)

    def __iter__(self) -> Iterator[ViewBatch]:
        """The batches of the current `epoch`."""
        chosen = self.chosen(self.epoch)
        for step in range(len(self)):
            yield self.collate(
                [self.view(*pair) for pair in chosen[step * self.size : (step + 1) * self.size]]
            )

    def chosen(self, epoch: int) -> list[tuple[int, int]]:
        """(picture, view) of an epoch, in order."""
        if not self.shuffle:
            return [(row, 0) for row in self.rows]
        random = np.random.RandomState([self.seed, epoch])
        order = random.permutation(self.rows).tolist()
        return list(zip(order, random.randint(self.views, size=len(order)).tolist(), strict=True))

    def view(self, row: int, number: int) -> View:
        """A view of a picture."""
        one = self.pictures[row]
        return make_view(one.image, one.label, one.modality, number, self.view_seed, one.known)

    def collate(self, views: Sequence[View]) -> ViewBatch:
        """Views to one batch."""
        found = self.source.arrays(views) if self.source else [{} for _ in views]
        placed = [self._placed(view) for view in views]
        grid = (spec_of(self.specs, views[0].modality).grid,) * 2
        targets = [self._target(v, a, p, grid) for v, a, (_, p) in zip(views, found, placed, strict=True)]
        index = [self.modalities.index(v.modality) if v.modality in self.modalities else 0 for v in views]
        places = [p for _, p in placed]
        label, known = _labels(views, places) if self.labels else _no_labels(len(views))
        image = torch.from_numpy(np.stack([image for image, _ in placed]))
        return ViewBatch(
            image.contiguous(memory_format=torch.channels_last),
            torch.tensor(index),
            torch.stack(targets),
            torch.stack([picture_cells(p, grid) for p in places]),
            label,
            known,
            self._saliency(views, found, places, grid),
        )

    def _saliency(
        self,
        views: Sequence[View],
        found: Sequence[Mapping[str, NDArray[Any]]],
        places: Sequence[Placement],
        grid: tuple[int, int],
    ) -> Tensor:
        if self.saliency is None or self.source is None:
            return torch.zeros(0)
        rows = []
        for view, arrays, ours in zip(views, found, places, strict=True):
            theirs = spec_of(self.source.specs, view.modality).place(view.image.shape[:2])
            one = torch.from_numpy(arrays[self.saliency]).float()[None]
            rows.append(align_embedding(one, theirs, ours, grid)[0])
        return torch.stack(rows)

    def _placed(self, view: View) -> tuple[NDArray[np.float32], Placement]:
        """The student's input and how the view lies in it."""
        spec = spec_of(self.specs, view.modality)
        if self.images:
            return apply_spec(view.image, spec)
        return np.zeros((3, 0, 0), np.float32), spec.place(view.image.shape[:2])

    def _target(
        self, view: View, arrays: Mapping[str, NDArray[Any]], ours: Placement, grid: tuple[int, int]
    ) -> Tensor:
        if self.source is None:
            return torch.zeros(0, *grid)
        theirs = spec_of(self.source.specs, view.modality).place(view.image.shape[:2])
        return align_embedding(torch.from_numpy(arrays[EMBEDDING]).float(), theirs, ours, grid)


def _labels(views: Sequence[View], places: Sequence[Placement]) -> tuple[Tensor, Tensor]:
    """Labels in the student's frame, (B, T, S, S), and which of them are known, (B, T); T is that of the richest."""
    count = max(1, *(len(view.known) for view in views))
    label = torch.zeros(len(views), count, *places[0].frame)
    known = torch.zeros(len(views), count, dtype=torch.bool)
    for row, (view, place) in enumerate(zip(views, places, strict=True)):
        rows, columns = place.content
        small = resized_label(view.label, (rows, columns))
        for target in range(len(view.known)):
            label[row, target, :rows, :columns] = torch.from_numpy(small == target + 1)
        known[row, : len(view.known)] = torch.tensor(view.known)
    return label, known


def _no_labels(count: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(count, 0, 1, 1), torch.zeros(count, 0, dtype=torch.bool)
