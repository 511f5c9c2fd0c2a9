# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The one way from an image to a mask: command line, bundles, MONAI Label and evaluation all go through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.placement import apply_spec, label_map
from monai_effsam.errors import UsageError
from monai_effsam.inference.clock import StageClock
from monai_effsam.inference.results import TargetResult
from monai_effsam.inference.runtimes import PromptArrays, Runtime, open_runtime
from monai_effsam.specs import Placement, Prompts
from monai_effsam.targets import Target, check_modality, find_targets, targets_of

if TYPE_CHECKING:
    from monai_effsam.data.io import Image

__all__ = ["Decoding", "Encoding", "Segmentation", "Segmenter"]

PRESENT = 0.5
"""A target whose presence is below this is answered "nothing here", unless a user prompts for it."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """Some slices of one image, encoded once; decode it as often as wanted.

    Args:
        encoded: what the runtime's encoder made of B slices.
        placement: how each of them lies in the model's frame.
        modality: name of their modality.
        slices: B.
        ms: time spent in `prepare` (resizing and intensities) and `encode` [ms].
    """

    encoded: Any
    placement: Placement
    modality: str
    slices: int
    ms: dict[str, float]

    def __len__(self) -> int:
        """B, the number of slices."""
        return self.slices


@dataclass(frozen=True, slots=True)
class Decoding:
    """What the decoder answers for B slices, in the geometry of the image.

    Args:
        mask: (B, H, W) uint8, values of the target table.
        targets: the T targets asked for.
        quality: (B, T) the model's own estimate of IoU, 0..1.
        presence: (B, T) probability that the target is there, 0..1.
        ms: time spent in `decode` and `place` (masks back to the image's size) [ms].
    """

    mask: NDArray[np.uint8]
    targets: tuple[Target, ...]
    quality: NDArray[np.float32]
    presence: NDArray[np.float32]
    ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The answer for a whole image.

    Args:
        mask: (N, H, W) uint8, values of the target table; 0 is "none".
        found: one result for each target asked for, in table order, also for those that were not found.
        ms: time spent in `prepare`, `encode`, `decode` and `place`, see `Encoding` and `Decoding` [ms].
    """

    mask: NDArray[np.uint8]
    found: tuple[TargetResult, ...]
    ms: dict[str, float]


class Segmenter:
    """File to mask with one model: encode once, decode for each prompt, or `segment` a whole image.

    Args:
        runtime: the model, ready to run; see `open`.
        batch_size: slices of a volume that go through the network together.

    Example:
        >>> segmenter = Segmenter.open("bundles/esp_medsam")                               # doctest: +SKIP
        >>> segmenter.segment(read_image(Path("polyp.png")), "endoscopy").found[0].area_px  # doctest: +SKIP
        12034
    """

    def __init__(self, runtime: Runtime, *, batch_size: int = 4) -> None:
        self.runtime, self.batch_size = runtime, batch_size
        self.model = runtime.model
        self._modalities = tuple(dict.fromkeys(target.modality for target in self.model.targets))

    @classmethod
    def open(
        cls,
        path: Path | str,
        runtime: str | None = None,
        device: str = "cpu",
        *,
        threads: int | None = None,
        batch_size: int = 4,
    ) -> Segmenter:
        """A segmenter of a model on disk; arguments and errors as of `runtimes.open_runtime`."""
        return cls(open_runtime(path, runtime, device, threads), batch_size=batch_size)

    @property
    def device(self) -> str:
        """Where the network runs."""
        return self.runtime.device

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that the model knows."""
        return self._modalities

    def encode(self, image: Image, index: int | Sequence[int], modality: str) -> Encoding:
        """The first half: slices `index` of an image through the encoder.

        Raises:
            UnknownNameError: the model does not know the modality.
        """
        number = self.modality_index(modality)
        spec = self.model.specs[modality]
        indices = (index,) if isinstance(index, int) else tuple(index)
        clock = StageClock()
        placed = [apply_spec(image.rgb(i), spec) for i in indices]
        batch = np.stack([array for array, _ in placed])
        clock.lap("prepare")
        encoded = self.runtime.encode(batch, number)
        clock.lap("encode")
        return Encoding(encoded, placed[0][1], modality, len(indices), clock.ms)

    def decode(
        self, encoding: Encoding, *, targets: Sequence[str] | None = None, prompts: Prompts | None = None
    ) -> Decoding:
        """The second half: masks from an encoding, with or without a user's prompt.

        A pixel gets the most probable of the targets whose probability is at least 0.5 there. A target whose
        presence in a slice is below 0.5 is left out of that slice; with a prompt its presence is not asked.

        Args:
            encoding: from `encode`.
            targets: names of the targets wanted, of all of the modality by default.
            prompts: points and box in source pixels; needs an encoding of one slice, and one target.

        Raises:
            UnknownNameError: no such target.
            UsageError: a target of another modality, or a prompt that cannot be used.
        """
        number = self.modality_index(encoding.modality)
        table = targets_of(encoding.modality, self.model.targets)
        wanted = table if targets is None else find_targets(targets, encoding.modality, self.model.targets)
        columns = [table.index(target) for target in table if target in wanted]
        chosen = tuple(table[column] for column in columns)
        given = None
        if prompts:
            _check_prompted(len(encoding), chosen, encoding.modality)
            given = PromptArrays.of(prompts, encoding.placement)
        clock = StageClock()
        raw = self.runtime.decode(encoding.encoded, number, given)
        clock.lap("decode")
        logits, quality, presence = (part[:, columns] for part in raw)
        shown = np.ones_like(presence, dtype=bool) if prompts else presence >= PRESENT
        mask = np.stack(
            [label_map(logits[b], shown[b], chosen, encoding.placement) for b in range(len(encoding))]
        )
        clock.lap("place")
        return Decoding(mask, chosen, quality, presence, clock.ms)

    def segment(
        self,
        image: Image,
        modality: str,
        *,
        targets: Sequence[str] | None = None,
        prompts: Prompts | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Segmentation:
        """Outline the targets of a modality in an image; of a volume slice by slice.

        Args:
            image: from `data.io.read_image`.
            modality: one of `modalities`.
            targets: names of the targets wanted, of all of the modality by default.
            prompts: points and box in source pixels, for one target of a single picture.
            progress: called with (slices done, slices in all) after each batch.

        Raises:
            UnknownNameError: no such modality or target.
            UsageError: a target of another modality, or a prompt that cannot be used.
        """
        if prompts:
            if len(image) != 1:
                raise UsageError(
                    f"{image.name}: {len(image)} slices, expected one for a prompt. Prompt a 2D image."
                )
            prompts.check_inside(image.size)
        mask = np.zeros((len(image), *image.size), np.uint8)
        ms: dict[str, float] = {}
        parts: list[Decoding] = []
        for indices in _batches(len(image), self.batch_size):
            encoding = self.encode(image, indices, modality)
            part = self.decode(encoding, targets=targets, prompts=prompts)
            mask[indices.start : indices.stop] = part.mask
            parts.append(part)
            for stage, time_spent in {**encoding.ms, **part.ms}.items():
                ms[stage] = ms.get(stage, 0.0) + time_spent
            if progress:
                progress(indices.stop, len(image))
        return Segmentation(mask, _results(image, mask, parts), ms)

    def modality_index(self, modality: str) -> int:
        """Place of a modality among `modalities`.

        Raises:
            UnknownNameError: the model does not know it.
        """
        check_modality(modality, self.modalities)
        return self.modalities.index(modality)


def _batches(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _check_prompted(slices: int, chosen: Sequence[Target], modality: str) -> None:
    """Refuse a prompt that does not say what it outlines, or where."""
    if slices != 1:
        raise UsageError(f"prompts: {slices} slices are encoded, expected one. Prompt a 2D image.")
    if len(chosen) != 1:
        names = ", ".join(target.name for target in chosen)
        raise UsageError(
            f"prompts: {modality} has {len(chosen)} targets, expected one. Choose one of {names}."
        )


def _results(image: Image, mask: NDArray[np.uint8], parts: Sequence[Decoding]) -> tuple[TargetResult, ...]:
    presence = np.concatenate([part.presence for part in parts])
    quality = np.concatenate([part.quality for part in parts])
    found = []
    for column, target in enumerate(parts[0].targets):
        areas = np.count_nonzero(mask == target.value, axis=(1, 2))
        rows = areas > 0 if areas.any() else presence[:, column] == presence[:, column].max()
        pixels = int(areas.sum())
        area_mm2, volume_ml = _physical(image, pixels)
        found.append(
            TargetResult(
                name=target.name,
                value=target.value,
                area_px=pixels,
                quality=float(quality[rows, column].mean()),
                presence=float(presence[:, column].max()),
                found=pixels > 0,
                area_mm2=area_mm2,
                volume_ml=volume_ml,
            )
        )
    return tuple(found)


def _physical(image: Image, pixels: int) -> tuple[float | None, float | None]:
    """(mm^2, ml) of so many pixels; only what the image's spacing can tell."""
    if image.spacing_mm is None:
        return None, None
    area = pixels * image.spacing_mm[0] * image.spacing_mm[1]
    if image.is_volume:
        return None, None if image.slice_step_mm is None else area * image.slice_step_mm / 1000
    return (area, None) if len(image) == 1 else (None, None)
