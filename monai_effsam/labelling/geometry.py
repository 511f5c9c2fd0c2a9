# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Between a viewer's voxels and our slices: indices of the stored array, and masks on the grid that ITK reads.

A viewer counts voxels [i, j, k] in the order of the file, x fastest. An `Image` is cut across the acquisition axis and
turned the way up that a reader expects. Both ways are exact permutations and flips; nothing is resampled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Image
from monai_effsam.data.io.grid import GridGeometry, lps_to_ras, slice_view
from monai_effsam.data.io.nifti import NiftiGeometry
from monai_effsam.data.io.quiet import quiet
from monai_effsam.data.io.raster import PageGeometry
from monai_effsam.errors import DataError

__all__ = [
    "Place",
    "StoredGrid",
    "across",
    "from_stored",
    "place_of",
    "stored_affine",
    "stored_grid",
    "stored_size",
    "to_stored",
]


class Place(NamedTuple):
    """Where a voxel lies in the slices of an `Image`, as indices."""

    slice: int
    row: int
    column: int


@dataclass(frozen=True)
class StoredGrid:
    """The grid of a file as ITK reads it, in LPS millimetres.

    Args:
        size: voxels along each axis of the file, 2 or 3 of them.
        spacing: distance of neighbours along each axis [mm].
        origin: centre of the first voxel [mm].
        direction: one unit vector a row, that of each axis of the file.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[tuple[float, ...], ...]

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4), index -> RAS [mm]."""
        matrix = np.eye(4)
        dimensions = len(self.size)
        for axis in range(dimensions):
            matrix[:dimensions, axis] = np.asarray(self.direction[axis]) * self.spacing[axis]
        matrix[:dimensions, 3] = self.origin
        return lps_to_ras(matrix)


def to_stored(image: Image, mask: NDArray[Any]) -> NDArray[Any]:
    """(N, H, W) in reading order -> (X, Y, Z) as stored, a view.

    Raises:
        DataError: a geometry that is not known here.
    """
    geometry = image.geometry
    if isinstance(geometry, PageGeometry):
        return geometry.stored(mask).transpose(2, 1, 0)
    if isinstance(geometry, NiftiGeometry) or (isinstance(geometry, GridGeometry) and geometry.view):
        assert geometry.view is not None
        return geometry.view.undo(mask)
    if isinstance(geometry, GridGeometry):
        return mask.transpose(2, 1, 0)
    raise DataError(
        f"{image.path}: geometry is {type(geometry).__name__}, expected that of a picture or a volume. Use read_image."
    )


def from_stored(image: Image, stored: NDArray[Any]) -> NDArray[Any]:
    """(X, Y, Z) as stored -> (N, H, W) in reading order, a view; the inverse of `to_stored`."""
    geometry = image.geometry
    if isinstance(geometry, PageGeometry):
        return geometry.upright(stored.transpose(2, 1, 0))
    if isinstance(geometry, NiftiGeometry) or (isinstance(geometry, GridGeometry) and geometry.view):
        assert geometry.view is not None
        return geometry.view.slices(stored)
    return stored.transpose(2, 1, 0)


def stored_size(image: Image) -> tuple[int, int, int]:
    """(X, Y, Z), voxels along each axis of the file."""
    x, y, z = to_stored(image, np.broadcast_to(np.uint8(0), (len(image), *image.size))).shape
    return int(x), int(y), int(z)


def place_of(image: Image, voxel: tuple[int, int, int]) -> Place:
    """Slice, row and column of a voxel [i, j, k]; it must lie in the image."""
    shape = (len(image), *image.size)
    axes = (
        np.broadcast_to(np.arange(count).reshape([-1 if a == axis else 1 for a in range(3)]), shape)
        for axis, count in enumerate(shape)
    )
    return Place(*(int(to_stored(image, axis)[voxel]) for axis in axes))


def across(image: Image, axis: int = 2) -> Image:
    """The same volume cut across an axis of the file, for viewers that know no other slices than those along k.

    Args:
        image: any; pictures and stacks of pages have no other cut and come back as they are.
        axis: of the stored array.
    """
    geometry = image.geometry
    view = getattr(geometry, "view", None)
    if view is None or view.order[0] == axis or not isinstance(geometry, NiftiGeometry | GridGeometry):
        return image
    stored = _stored_pixels(image)
    affine = stored_affine(image).copy()
    affine[:3, axis] *= 1e6  # only directions count, and the thickest axis is cut
    cut = slice_view(stored.shape[:3], affine)
    slices = np.ascontiguousarray(cut.slices(stored))
    return replace(
        image, slices=slices, geometry=replace(geometry, view=cut), spacing_mm=None, slice_step_mm=None,
        is_volume=len(slices) > 1,
    )  # fmt: skip


def _stored_pixels(image: Image) -> NDArray[np.uint8]:
    """The pixels of an image as stored, (X, Y, Z) or (X, Y, Z, 3), a view."""
    if image.slices.ndim == 3:
        return to_stored(image, image.slices)
    return np.stack([to_stored(image, image.slices[..., c]) for c in range(image.slices.shape[3])], axis=-1)


def stored_grid(image: Image) -> StoredGrid:
    """The grid that viewers see in the image's file.

    ITK decides where it can read the file (which of a NIfTI's two forms counts, spacing of pictures); else the affine.
    """
    size = stored_size(image)
    if image.path.is_file():
        found = _itk_grid(image.path)
        if found is not None and int(np.prod(found.size)) == int(np.prod(size)):
            return found
    affine = lps_to_ras(stored_affine(image))
    steps = affine[:3, :3].T
    spacing = np.maximum(np.linalg.norm(steps, axis=1), 1e-9)
    return StoredGrid(
        size,
        tuple(float(s) for s in spacing),
        tuple(float(o) for o in affine[:3, 3]),
        tuple(tuple(float(v) for v in row) for row in steps / spacing[:, None]),
    )


def stored_affine(image: Image) -> NDArray[np.float64]:
    """(4, 4), index of the stored array -> RAS [mm]; pictures lie in the plane of the table, as ITK has them."""
    geometry = image.geometry
    if isinstance(geometry, NiftiGeometry):
        return np.asarray(geometry.header.get_best_affine(), np.float64)
    if isinstance(geometry, GridGeometry):
        return np.asarray(geometry.affine, np.float64)
    return np.diag([-1.0, -1.0, 1.0, 1.0])


def _itk_grid(path: Path) -> StoredGrid | None:
    """What ITK reads in a file's header; None where it cannot."""
    import SimpleITK  # the whole of it in a sixth of the time that one reader of `itk` takes to load

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet():
            reader.ReadImageInformation()
    except RuntimeError:
        return None
    count = int(reader.GetDimension())
    if count not in (2, 3):
        return None
    direction = (
        np.asarray(reader.GetDirection(), np.float64).reshape(count, count).T
    )  # ITK has axes in columns
    return StoredGrid(
        tuple(int(n) for n in reader.GetSize()),
        tuple(float(s) for s in reader.GetSpacing()),
        tuple(float(o) for o in reader.GetOrigin()),
        tuple(tuple(float(v) for v in row) for row in direction),
    )
