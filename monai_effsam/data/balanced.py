# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Balanced batches of labelled slices: each batch one modality, each step a pure function of
(seed, rank, step), so that an interrupted training continues with the very batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import IterableDataset

from monai_effsam.data.augmentation import AUGMENTATIONS, Augmentation
from monai_effsam.data.placement import apply_spec, normalise, toned
from monai_effsam.data.slices import LabelledSlice, resized_label
from monai_effsam.data.strata import Strata
from monai_effsam.data.transforms import RandDegraded, RandFrameWarpd, RandToned
from monai_effsam.specs import ImageSpec, Resize

__all__ = ["BalancedBatches", "Batch", "collate", "fitted"]


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of one modality: image (B, 3, S, S) float32, label (B, T_m, S, S) float32, known (B, T_m) bool."""

    image: Tensor
    label: Tensor
    known: Tensor
    modality: int

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device."""
        return Batch(self.image.to(device), self.label.to(device), self.known.to(device), self.modality)


def collate(
    images: Sequence[npt.NDArray[np.float32]],
    labels: Sequence[npt.NDArray[np.uint8]],
    known: Sequence[tuple[bool, ...]],
    modality: int,
) -> Batch:
    """Arrays to one `Batch`; labels become one channel a target."""
    image = torch.from_numpy(np.stack(images)).contiguous(memory_format=torch.channels_last)
    index = torch.from_numpy(np.stack(labels))[:, None]
    places = torch.arange(1, len(known[0]) + 1, dtype=torch.uint8).view(1, -1, 1, 1)
    return Batch(image, (index == places).float(), torch.tensor(known), modality)


class BalancedBatches(IterableDataset[Batch]):
    """Endless balanced batches, an epoch at a time.

    A step draws a modality, then for each item a stratum of it, then a slice; slices that hold a target are preferred
    (in volumes most do not). The batch size falls with the area of the model's frame, so steps cost alike.

    Args:
        slices: what to draw from.
        specs: an `ImageSpec` a modality.
        modalities: the network's modalities, in its order.
        weights: share of each set or stratum, as of `Strata`.
        batch_area: pixels a batch, at least two pictures.
        epoch_length: steps an epoch.
        seed: of everything random here.
        rank: of this process.
        filled: share of the draws that must hold a target, for sets that have empty slices too.
        warm_steps: for so many steps pictures are `warm_scale` times the model size ("small inputs first").
        warm_scale: that factor.

    Raises:
        DataError: there are no slices, or none whose set has a weight.
    """

    def __init__(  # noqa: PLR0913  one flat list, as in a recipe
        self,
        slices: Sequence[LabelledSlice],
        specs: Mapping[str, ImageSpec],
        modalities: Sequence[str],
        *,
        weights: Mapping[str, float] | None = None,
        batch_area: int = 8 * 320 * 320,
        epoch_length: int = 100,
        seed: int = 0,
        rank: int = 0,
        filled: float = 0.8,
        warm_steps: int = 0,
        warm_scale: float = 0.75,
    ) -> None:
        super().__init__()
        self.slices, self.specs, self.modalities = slices, specs, tuple(modalities)
        self.batch_area, self.epoch_length = batch_area, epoch_length
        self.seed, self.rank, self.epoch = seed, rank, 0
        self.warm_steps, self.warm_scale = warm_steps, warm_scale
        self.strata = Strata(slices, self.modalities, weights=weights, filled=filled)

    def __len__(self) -> int:
        """Steps an epoch."""
        return self.epoch_length

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the current `epoch`."""
        for step in range(self.epoch * self.epoch_length, (self.epoch + 1) * self.epoch_length):
            yield self.batch(step)

    def batch(self, step: int) -> Batch:
        """The batch of a step, the same whenever it is asked for."""
        weight = np.array([self.strata.weight(m) for m in self.modalities])
        # all ranks draw the same modality, so that none waits for another's larger pictures
        shared = np.random.RandomState([self.seed, step])
        modality = self.modalities[shared.choice(len(weight), p=weight / weight.sum())]
        random = np.random.RandomState([self.seed, self.rank, step])
        spec = self.specs[modality]
        size = spec.size
        if step < self.warm_steps:
            size = max(spec.stride * 2, round(size * self.warm_scale / (2 * spec.stride)) * 2 * spec.stride)
        augment = self._augment(size, spec.resize, AUGMENTATIONS.get(modality, Augmentation()), random)
        images, labels, known = [], [], []
        for _ in range(max(2, round(self.batch_area / size**2))):
            chosen = self.slices[self.strata.draw(modality, random)]
            item = augment({"image": toned(chosen.image, spec), "label": chosen.label})
            rows, columns = replace(spec, size=size).place(chosen.image.shape).content
            inside = np.s_[:rows, :columns]  # the rest is padding, as at inference
            image = np.full((3, size, size), spec.pad_value, np.float32)
            image[:, *inside] = normalise(item["image"][inside], spec)
            label = np.zeros((size, size), np.uint8)
            label[inside] = item["label"][inside]
            images.append(image)
            labels.append(label)
            known.append(chosen.known)
        return collate(images, labels, known, self.modalities.index(modality))

    @staticmethod
    def _augment(size: int, resize: Resize, ranges: Augmentation, random: np.random.RandomState) -> Compose:
        steps = [
            RandFrameWarpd(("image", "label"), size, ranges, prob=0.95, resize=resize),
            RandToned("image", ranges),
            RandDegraded("image", ranges.degrade),
        ]
        chain = Compose(steps)
        for step in steps:  # after Compose, which seeds its transforms anew with MONAI's global seed
            step.set_random_state(state=random)
        return chain


def fitted(slices: Sequence[LabelledSlice], spec: ImageSpec, modality: int) -> Batch:
    """Slices without variation, as inference sees them; for calibration and validation."""
    images, labels = [], []
    for one in slices:
        image, placement = apply_spec(one.image, spec)
        label = np.zeros(placement.frame, np.uint8)
        height, width = placement.content
        label[:height, :width] = resized_label(one.label, (height, width))
        images.append(image)
        labels.append(label)
    return collate(images, labels, [s.known for s in slices], modality)
