# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A mask as the file that a viewer asked for: NRRD or NIfTI, never the image's own picture format.

NRRD is written here: a header of ten lines and the voxels. It takes a tenth of the time that ITK's writer does.
"""

from __future__ import annotations

import gzip
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Image
from monai_effsam.data.io.grid import nifti_bytes
from monai_effsam.data.io.nifti import NiftiGeometry
from monai_effsam.errors import DataError, UsageError
from monai_effsam.labelling.geometry import StoredGrid, to_stored

__all__ = ["EXTENSIONS", "nrrd_bytes", "nrrd_of_voxels", "write_mask_file"]

EXTENSIONS = (".nrrd", ".nii.gz", ".nii")
"""Endings that a viewer may ask for."""


def write_mask_file(
    image: Image,
    mask: NDArray[np.uint8],
    grid: StoredGrid,
    extension: str = ".nrrd",
    *,
    compressed: bool = False,
) -> Path:
    """A temporary file on the exact grid of the image's file; who asked for it removes it.

    Args:
        image: that the mask belongs to.
        mask: (N, H, W) in reading order.
        grid: of `geometry.stored_grid`.
        extension: one of `EXTENSIONS`.
        compressed: whether an NRRD is packed; a `.nii.gz` always is.

    Raises:
        UsageError: another extension.
        DataError: the temporary folder cannot be written.
    """
    if extension not in EXTENSIONS:
        raise UsageError(f"result_extension: is '{extension}', expected one of {', '.join(EXTENSIONS)}.")
    stored = to_stored(image, mask)
    if extension == ".nrrd":
        content = nrrd_bytes(stored, grid, compressed=compressed)
    else:
        content = _nifti(image, stored, grid)
        content = content if extension == ".nii.gz" else gzip.decompress(content)
    try:
        handle, name = tempfile.mkstemp(prefix="effsam-", suffix=extension)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except OSError as error:
        raise DataError(
            f"mask file cannot be written: {error.strerror}. Free the temporary folder."
        ) from error
    return Path(name)


def nrrd_bytes(stored: NDArray[np.uint8], grid: StoredGrid, *, compressed: bool = False) -> bytes:
    """An NRRD file of a mask (X, Y, Z) on a grid, as ITK writes and reads it."""
    dimensions = len(grid.size)
    steps = [
        _vector(component * spacing for component in direction)
        for direction, spacing in zip(grid.direction, grid.spacing, strict=True)
    ]
    lines = (
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {dimensions}",
        "space: left-posterior-superior" if dimensions == 3 else f"space dimension: {dimensions}",
        f"sizes: {' '.join(map(str, grid.size))}",
        f"space directions: {' '.join(steps)}",
        f"kinds: {' '.join(['domain'] * dimensions)}",
        f"encoding: {'gzip' if compressed else 'raw'}",
        f"space origin: {_vector(grid.origin)}",
        "",
        "",
    )
    voxels = stored.reshape(grid.size, order="F").tobytes(order="F")
    return "\n".join(lines).encode() + (gzip.compress(voxels, 1, mtime=0) if compressed else voxels)


def nrrd_of_voxels(voxels: bytes, grid: StoredGrid) -> bytes:
    """An NRRD file of a label that came as bare voxels, as some browsers send it.

    Args:
        voxels: a byte each, in the order of the image's file, x fastest.
        grid: of the image.

    Raises:
        DataError: they are not as many as the image has.
    """
    if len(voxels) != math.prod(grid.size):
        size = "x".join(map(str, grid.size))
        raise DataError(
            f"label: has {len(voxels)} voxels, its image {size}. Send an NRRD, which tells its grid."
        )
    return nrrd_bytes(np.frombuffer(voxels, np.uint8).reshape(grid.size, order="F"), grid)


def _vector(values: Iterable[float]) -> str:
    return f"({','.join(repr(float(value)) for value in values)})"


def _nifti(image: Image, stored: NDArray[np.uint8], grid: StoredGrid) -> bytes:
    """With the header of the image where that is a NIfTI: its codes and both its forms."""
    if isinstance(image.geometry, NiftiGeometry):
        return nifti_bytes(np.asarray(stored).reshape(image.geometry.shape), None, image.geometry.header)
    return nifti_bytes(np.asarray(stored), grid.affine)
