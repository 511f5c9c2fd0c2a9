# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What the `Segmenter` hands out: slices encoded, slices decoded, the answer for a whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.inference.results import TargetResult
from monai_effsam.specs import Placement
from monai_effsam.targets import Target

if TYPE_CHECKING:
    from monai_effsam.data.io import Image

__all__ = ["Decoding", "Encoding", "Segmentation", "results_of"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """Some slices of one image, encoded once; decode it as often as wanted.

    Args:
        encoded: what the runtime's encoder made of B slices.
        placement: how each of them lies in the model's frame.
        modality: name of their modality; None where a promptable model was not told.
        slices: B.
        ms: time spent in `prepare` (resizing and intensities) and `encode` [ms].
    """

    encoded: Any
    placement: Placement
    modality: str | None
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
        targets: the T targets asked for; of a promptable model what the prompt is for.
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
        targets: their rows of the target table.
        ms: time spent in `prepare`, `encode`, `decode` and `place`, see `Encoding` and `Decoding` [ms].
    """

    mask: NDArray[np.uint8]
    found: tuple[TargetResult, ...]
    targets: tuple[Target, ...]
    ms: dict[str, float]


def results_of(image: Image, mask: NDArray[np.uint8], parts: Sequence[Decoding]) -> tuple[TargetResult, ...]:
    """One result for each target of an image, from the mask of all slices and the answers of their batches."""
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
