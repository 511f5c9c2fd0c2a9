# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What reading gives: `Image`, an 8-bit stack of slices that remembers the grid of its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import DataError

__all__ = ["MAX_PIXELS", "MAX_VALUES", "Image", "Kind", "MaskGeometry", "Source", "check_size"]

Kind = Literal["raster", "dicom", "nifti", "nrrd"]

MAX_PIXELS = 2**26
"""Largest slice that is read, in pixels (8192 x 8192)."""

MAX_VALUES = 2**29
"""Largest stack that is read, in values: slices x pixels x channels (512 x 512 x 2048)."""


class MaskGeometry(Protocol):
    """How a mask in reading order goes back to the grid of the file it belongs to."""

    @property
    def suffix(self) -> str:
        """File ending of the mask: `.png` or `.nii.gz`."""

    def encode(self, mask: NDArray[np.uint8]) -> bytes:
        """The mask file's content, from a mask (N, H, W) in reading order."""


@dataclass(frozen=True)
class Source:
    """One input: a file, or the files of one DICOM series.

    Args:
        paths: the file, or the series' files in the order of its slices.
        kind: what the content says it is; None where it looks like nothing that is read here.
        name: NAME of the files that are written for it, unique among the inputs found together.
    """

    paths: tuple[Path, ...]
    kind: Kind | None
    name: str

    @property
    def path(self) -> Path:
        """What names this input in messages and results: the file, or the folder of a series."""
        return self.paths[0] if len(self.paths) == 1 else self.paths[0].parent


@dataclass(frozen=True, eq=False)
class Image:
    """A picture, a stack of pages or a volume, as 8-bit slices the way up that a reader expects.

    Points, boxes and masks refer to `slices`; `write_mask` takes them back to the stored grid.

    Args:
        path: the file, or the folder of a DICOM series.
        name: NAME of the files that are written for it.
        slices: (N, H, W) grey or (N, H, W, 3) RGB, uint8, in reading order.
        modality: what the file says it is (DICOM only), else None.
        spacing_mm: (row, column) spacing of a slice [mm], None where unknown.
        slice_step_mm: distance of neighbouring slices [mm], None where unknown or meaningless.
        kind: what was read.
        is_volume: whether the slices lie side by side in space (not pages, not frames in time).
        geometry: what `write_mask` needs.
        sources: the files that were read; never written to.
        notes: what the user should know of the reading, one sentence each.
    """

    path: Path
    name: str
    slices: NDArray[np.uint8]
    modality: str | None
    spacing_mm: tuple[float, float] | None
    slice_step_mm: float | None
    kind: Kind
    is_volume: bool
    geometry: MaskGeometry
    sources: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.slices.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of a slice, in pixels."""
        return int(self.slices.shape[1]), int(self.slices.shape[2])

    def rgb(self, index: int) -> NDArray[np.uint8]:
        """Slice `index` as (H, W, 3) uint8; grey is repeated."""
        one = self.slices[index]
        return np.ascontiguousarray(one if one.ndim == 3 else np.repeat(one[..., None], 3, axis=2))


def check_size(where: object, height: int, width: int, slices: int = 1, channels: int = 1) -> None:
    """Refuse what could exhaust the memory, before it is decoded.

    Raises:
        DataError: no pixels at all, or more than `MAX_PIXELS` a slice or `MAX_VALUES` in all.
    """
    if min(height, width, slices) < 1:
        raise DataError(f"{where}: size is {height}x{width}, {slices} slices, expected at least one pixel.")
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{where}: size is {height}x{width} pixels, expected at most {MAX_PIXELS} pixels a slice "
            f"(such as 8192x8192). Crop or shrink it."
        )
    if height * width * slices * channels > MAX_VALUES:
        raise DataError(
            f"{where}: size is {slices} slices of {height}x{width}, {channels} channel(s), expected at most "
            f"{MAX_VALUES} values (such as 512x512x2048). Split it."
        )
