# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A label as a viewer sent it, on the grid of its image: the same grid, a part of it, or another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Image, read_label
from monai_effsam.data.io.raster import PageGeometry
from monai_effsam.errors import DataError
from monai_effsam.labelling.geometry import from_stored, stored_affine, stored_size

__all__ = ["label_on_grid", "resampled"]

_VOLUMES = (".nii", ".nii.gz", ".nrrd")
_CLOSE = 0.1  # of a voxel


def label_on_grid(path: Path, image: Image) -> NDArray[np.uint8]:
    """A label in the order of its image's slices, (N, H, W) uint8, values untouched.

    A NIfTI or NRRD of another grid (cropped by a viewer, come back from a DICOM Segmentation, drawn on a resampled
    volume) is taken over by nearest neighbour, by the places of both grids in space. A picture lies at the origin, its
    pixels 1 mm wide, as viewers have it; a label with its very number of pixels is taken as it is.

    Args:
        path: a grey picture, a NIfTI or an NRRD.
        image: from `read_image`.

    Raises:
        DataError: unreadable, values that are no whole numbers 0..255, a picture of another size, or nothing of what is
            drawn lies in the image.
    """
    if not path.name.lower().endswith(_VOLUMES):
        return read_label(path, image)
    values, affine = _volume(path)
    shape, own = stored_size(image), stored_affine(image)
    if values.shape != shape or (_has_place(image) and not _same_place(affine, own, shape)):
        drawn = bool(values.any())
        values = resampled(values, affine, shape, own)
        if drawn and not values.any():
            raise DataError(
                f"{path}: label lies beside its image {image.path.name}, expected it inside. Draw it on this image."
            )
    return np.ascontiguousarray(from_stored(image, values))


def _has_place(image: Image) -> bool:
    """Whether an image tells where it lies; a picture does not, and viewers invent what they like."""
    return not isinstance(image.geometry, PageGeometry)


def _volume(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(X, Y, Z) values and their affine to RAS."""
    if path.name.lower().endswith(".nrrd"):
        from monai_effsam.data.io.nrrd import load_nrrd
        from monai_effsam.data.io.quiet import quiet

        try:
            with quiet():  # ITK complains while it is loaded
                values, affine, _ = load_nrrd(path)
        except RuntimeError as error:  # ITK's, many lines
            raise DataError(
                f"{path}: label cannot be read, expected a whole NRRD. Export it again."
            ) from error
    else:
        import nibabel
        from nibabel.filebasedimages import ImageFileError

        try:
            file = nibabel.load(path)
            values, affine = np.asarray(file.dataobj), np.asarray(file.affine, float)
        except (OSError, EOFError, ValueError, ImageFileError) as error:
            raise DataError(f"{path}: label cannot be read ({error}). Export it again.") from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim > 3:
        raise DataError(f"{path}: label has {values.ndim} dimensions, expected 3. Export a label map.")
    if values.size and (
        values.min() < 0 or values.max() > 255 or not np.array_equal(values, np.round(values))
    ):
        raise DataError(f"{path}: label values are not whole numbers 0..255. Export it as a label map.")
    return values.reshape((*values.shape, 1, 1)[:3]).astype(np.uint8), affine


def _same_place(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether two affines put every corner of an array at the same place."""
    corners = np.array([[x, y, z, 1.0] for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])])
    off = np.linalg.inv(other) @ one @ corners.T - corners.T
    return bool(np.abs(off).max() < _CLOSE)


def resampled(
    values: NDArray[np.uint8],
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    own: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """The nearest value of a label at every voxel of another grid, 0 outside.

    Args:
        values: (X, Y, Z) of the label.
        affine: its indices to RAS [mm].
        shape: of the other grid.
        own: its indices to RAS [mm].
    """
    from scipy.ndimage import affine_transform

    index = np.linalg.inv(affine) @ own
    padded = np.pad(values, 1)  # else a voxel on the rim loses the half that lies outside its centre
    out = affine_transform(
        padded, index[:3, :3], index[:3, 3] + 1, output_shape=shape, order=0, mode="constant", cval=0
    )
    return np.asarray(out, np.uint8)
