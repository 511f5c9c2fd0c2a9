# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""NRRD, attached or detached header, 2D and 3D, by ITK (imported at the first use: it takes seconds)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io.grid import GridGeometry, lps_to_ras, slice_view, spacing_of
from monai_effsam.data.io.image import Image, Source, check_size
from monai_effsam.data.io.nifti import volume_to_uint8
from monai_effsam.data.io.quiet import quiet
from monai_effsam.errors import DataError

__all__ = ["load_nrrd", "read_nrrd"]


def read_nrrd(source: Source, ct_window: str, modality: str | None) -> Image:
    """An NRRD file as slices across its acquisition axis; grey values as `read_nifti` treats them.

    Masks of it are NIfTI files with the same affine, told in RAS instead of NRRD's space.

    Raises:
        DataError: truncated, damaged, more than three dimensions, or neither grey nor RGB.
    """
    path = source.path
    try:
        with quiet():
            values, affine, dimensions = load_nrrd(path)
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: NRRD cannot be read: {_reason(error)}. Copy or export the file again."
        ) from error
    if not np.isfinite(affine).all():
        raise DataError(
            f"{path}: affine holds NaN or infinite numbers, expected millimetres. Repair the header."
        )
    view = slice_view(values.shape[:3], affine, 2 if dimensions == 2 else None)
    pixels, notes = volume_to_uint8(values, ct_window, modality, path)
    slices = np.ascontiguousarray(view.slices(pixels))
    step, row, column = (spacing_of(affine)[axis] for axis in view.order)
    return Image(
        path=path,
        name=source.name,
        slices=slices,
        modality=None,
        spacing_mm=(row, column),
        slice_step_mm=step if len(slices) > 1 else None,
        kind="nrrd",
        is_volume=len(slices) > 1,
        geometry=GridGeometry(affine, view, values.shape[:dimensions]),
        sources=source.paths,
        notes=notes,
    )


def load_nrrd(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], int]:
    """(X, Y, Z[, 3]) values, (4, 4) affine to RAS, number of dimensions in the file."""
    import itk

    reader = itk.NrrdImageIO.New()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    dimensions, channels = int(reader.GetNumberOfDimensions()), int(reader.GetNumberOfComponents())
    sizes = tuple(int(reader.GetDimensions(i)) for i in range(dimensions))
    if dimensions not in (2, 3):
        raise DataError(
            f"{path}: volume has {dimensions} dimensions {sizes}, expected 2 or 3. Split it into single volumes."
        )
    if channels not in (1, 3):
        raise DataError(f"{path}: voxels have {channels} values, expected 1 (grey) or 3 (RGB). Split it.")
    x, y, z = (*sizes, 1)[:3]
    check_size(path, x * y * z // max(1, max(x, y, z)), 1, max(x, y, z), channels)
    image = itk.imread(str(path), imageio=reader)
    array = np.asarray(itk.array_from_image(image))
    if channels == 3 and array.dtype != np.uint8:
        raise DataError(f"{path}: colour voxels are {array.dtype}, expected 8-bit RGB. Convert it.")
    values = array.transpose(*reversed(range(dimensions)), *range(dimensions, array.ndim))
    affine = np.eye(4)
    direction = np.asarray(itk.array_from_matrix(image.GetDirection()))
    affine[:dimensions, :dimensions] = direction * np.asarray(image.GetSpacing())
    affine[:dimensions, 3] = np.asarray(image.GetOrigin())
    if dimensions == 2:
        values = values.reshape(x, y, 1, *values.shape[2:])
    return values, lps_to_ras(affine), dimensions


def _reason(error: BaseException) -> str:
    """The last telling line of ITK's long messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")
