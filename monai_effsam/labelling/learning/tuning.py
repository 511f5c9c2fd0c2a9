# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Fine-tuning that runs on a laptop: the trunk is run once a picture, only what comes after it learns.

Of a timm encoder the trunk's maps are kept, so controllers can learn too; of any other its embedding and skips, so the
decoder (with self-prompter) alone learns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from monai_effsam.checkpoints import LoadedModel
from monai_effsam.data.balanced import fitted
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.data.strata import Strata
from monai_effsam.data.views import make_view
from monai_effsam.engines.self_prompting import SelfPromptingStep
from monai_effsam.errors import UsageError
from monai_effsam.inference.answers import Encoding
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.metrics.overlap import dice_score
from monai_effsam.networks.encoders import Encoded
from monai_effsam.networks.encoders.timm_encoder import TimmEncoder
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import Placement
from monai_effsam.targets import narrowed_targets, targets_of

__all__ = [
    "CachedBatch",
    "CachedSlice",
    "CachedSlices",
    "CachedStep",
    "cache_slices",
    "encoded_of",
    "held_dice",
]


@dataclass(frozen=True, slots=True)
class CachedSlice:
    """A labelled picture after the part of the network that does not learn.

    Args:
        parts: maps (c, h, w) in 16 bits.
        label: (S, S) uint8 in the model's frame; 0, or 1 + the target's place.
        placement: of the picture in the frame.
        slice: the picture.
    """

    parts: tuple[Tensor, ...]
    label: Tensor
    placement: Placement
    slice: LabelledSlice


@dataclass(frozen=True, slots=True)
class CachedBatch:
    """Cached slices of one modality: parts (B, c, h, w), label (B, T_m, S, S), known (B, T_m), modality's index."""

    parts: tuple[Tensor, ...]
    label: Tensor
    known: Tensor
    modality: int

    def to(self, device: torch.device | str) -> CachedBatch:
        """The same on a device."""
        parts = tuple(part.to(device) for part in self.parts)
        return CachedBatch(parts, self.label.to(device), self.known.to(device), self.modality)


@torch.no_grad()
def cache_slices(
    model: LoadedModel, slices: Sequence[LabelledSlice], *, views: int = 1
) -> Iterator[CachedSlice]:
    """Slices through the part of the network that does not learn, one by one.

    Args:
        model: self-prompting.
        slices: to be cached.
        views: of each: the picture itself and variations of it.
    """
    network = cast(EspMedSam, model.network).eval()
    for one in slices:
        index = network.modalities.index(one.modality)
        spec = model.specs[one.modality]
        for number in range(views):
            shown = one
            if number:
                view = make_view(one.image, one.label, one.modality, number)
                shown = LabelledSlice(view.image, view.label, one.modality, one.stratum, one.case, one.known)
            batch = fitted([shown], spec, index)
            places = torch.arange(1, len(one.known) + 1).view(-1, 1, 1)
            label = (batch.label[0] * places).sum(0).to(torch.uint8)
            parts = _parts(network, batch.image, index)
            yield CachedSlice(
                tuple(part[0].half() for part in parts), label, spec.place(shown.image.shape), shown
            )


def _parts(network: EspMedSam, image: Tensor, modality: int) -> tuple[Tensor, ...]:
    if isinstance(network.encoder, TimmEncoder):
        return network.encoder.features(image)
    encoded = network.encode(image, torch.full((len(image),), modality))
    return encoded.embedding, *encoded.skips


def encoded_of(network: EspMedSam, parts: Sequence[Tensor], modality: int) -> Encoded:
    """What the encoder makes of images, from their parts (B, c, h, w).

    Args:
        network: whose controllers see the parts, if its encoder keeps them apart.
        parts: of `CachedSlice`.
        modality: index, of all of them.
    """
    given = tuple(part.float() for part in parts)
    if isinstance(network.encoder, TimmEncoder):
        index = torch.full((len(given[0]),), modality, device=given[0].device)
        return network.encoder.finish(given, index)
    return Encoded(given[0], given[1:])


class CachedSlices:
    """Endless batches of cached slices, each a pure function of the seed and its number; an epoch at a time.

    Args:
        cached: to draw from; slices that hold something are preferred.
        modalities: the network's.
        batch: slices a step.
        epoch_length: steps an epoch.
        seed: of the draws.
    """

    def __init__(
        self,
        cached: Sequence[CachedSlice],
        modalities: Sequence[str],
        *,
        batch: int = 4,
        epoch_length: int = 20,
        seed: int = 0,
    ) -> None:
        self.cached, self.modalities, self.size = cached, tuple(modalities), batch
        self.epoch_length, self.seed, self._step = epoch_length, seed, 0
        self.strata = Strata([one.slice for one in cached], self.modalities)

    def __len__(self) -> int:
        """Steps an epoch."""
        return self.epoch_length

    def __iter__(self) -> Iterator[CachedBatch]:
        """The batches of the next epoch."""
        for _ in range(self.epoch_length):
            yield self.batch(self._step)
            self._step += 1

    def batch(self, step: int) -> CachedBatch:
        """The batch of a step, the same whenever it is asked for."""
        random = np.random.RandomState([self.seed, step])
        weight = np.array([self.strata.weight(m) for m in self.modalities])
        number = int(random.choice(len(weight), p=weight / weight.sum()))
        rows = [self.cached[self.strata.draw(self.modalities[number], random)] for _ in range(self.size)]
        parts = tuple(torch.stack(part) for part in zip(*(row.parts for row in rows), strict=True))
        index = torch.stack([row.label for row in rows])[:, None]
        places = torch.arange(1, len(rows[0].slice.known) + 1, dtype=torch.uint8).view(1, -1, 1, 1)
        known = torch.tensor([row.slice.known for row in rows])
        return CachedBatch(parts, (index == places).float(), known, number)


class CachedStep(SelfPromptingStep):
    """The self-prompting training step on cached slices; the encoder stays, but for its controllers if asked for.

    Args:
        network: to be trained.
        controllers: train the controllers too.
        seed: of the simulated user.

    Raises:
        UsageError: controllers are asked for, but the encoder does not keep them apart from its trunk, or has none.
    """

    def __init__(self, network: EspMedSam, *, controllers: bool = False, seed: int = 0) -> None:
        super().__init__(network, seed=seed)
        own = list(network.encoder.controller_parameters())
        if controllers and not (own and isinstance(network.encoder, TimmEncoder)):
            raise UsageError(
                f"train: the controllers of {type(network.encoder).__name__} cannot learn from cached maps, expected a "
                "timm encoder with controllers. Train the decoder."
            )
        network.requires_grad_(True)
        network.encoder.requires_grad_(False)
        for parameter in own if controllers else ():
            parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> CachedStep:
        """As of any module, but the encoder stays in eval mode."""
        super().train(mode)
        self.network.encoder.eval()
        return self

    def forward(self, batch: Any, step: int) -> dict[str, Tensor]:
        """Loss terms of a `CachedBatch`; `loss` is what to minimise."""
        encoded = encoded_of(self.network, batch.parts, batch.modality)
        return self.losses(encoded, batch.label, batch.known, batch.modality, step)


@torch.no_grad()
def held_dice(
    model: LoadedModel, cached: Sequence[CachedSlice], targets: Collection[str] | None = None
) -> float:
    """Mean Dice of the model's own answers, 0..1, over pictures and targets that are there or were found.

    Args:
        model: self-prompting; put in eval mode.
        cached: pictures with labels, by this model or one that differs only in what learns.
        targets: names of those that are asked for; all by default.
    """
    segmenter = Segmenter(TorchRuntime(model))
    network = cast(EspMedSam, model.network)
    scores: list[float] = []
    for one in cached:
        index = network.modalities.index(one.slice.modality)
        encoded = encoded_of(network, [part[None] for part in one.parts], index)
        asked = [t.name for t in narrowed_targets(one.slice.modality, targets, network.targets)]
        encoding = Encoding(encoded, one.placement, one.slice.modality, 1, {})
        found = segmenter.decode(encoding, targets=asked).mask[0]
        for place, target in enumerate(targets_of(one.slice.modality, network.targets), 1):
            answer, label = found == target.value, one.slice.label == place
            if one.slice.known[place - 1] and (answer.any() or label.any()):
                scores.append(dice_score(answer, label))
    return float(np.mean(scores)) if scores else 0.0
