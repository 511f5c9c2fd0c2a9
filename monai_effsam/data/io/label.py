# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Masks that people drew: the pixel value is the label, read in the same order as their image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io.image import Image
from monai_effsam.errors import DataError

__all__ = ["read_label"]


def read_label(path: Path, image: Image) -> NDArray[np.uint8]:
    """A label file on the grid of its image, values untouched, (N, H, W) uint8.

    Args:
        path: an 8-bit grey picture in the stored orientation of its image, or a NIfTI file, as `write_mask` makes
            them.
        image: what the label belongs to, as `read_image` gave it.

    Raises:
        DataError: unreadable, of another size than the image, in colour, or with values over 255.
    """
    values = _volume(path) if path.name.endswith((".nii", ".nii.gz")) else _picture(path)
    values = _in_reading_order(values, image)
    if values.shape != (len(image), *image.size):
        raise DataError(
            f"{path}: mask has {'x'.join(map(str, values.shape))} pixels, its image {image.path.name} has "
            f"{len(image)}x{image.size[0]}x{image.size[1]}. Draw it on the same image."
        )
    if values.min() < 0 or values.max() > 255 or not np.array_equal(values, np.round(values)):
        raise DataError(f"{path}: mask values are not whole numbers 0..255. Export it as a label map.")
    return np.ascontiguousarray(values, dtype=np.uint8)


def _in_reading_order(values: NDArray[np.generic], image: Image) -> NDArray[np.generic]:
    """(N, H, W) of a mask as stored; where that does not fit the image the shape is left to be complained of."""
    view = getattr(image.geometry, "view", None)
    upright = getattr(image.geometry, "upright", None)
    if view is not None and values.ndim <= 3:
        return np.asarray(view.slices(values.reshape((*values.shape, 1, 1)[:3])))
    if values.ndim == 2:
        values = values[None]
    elif values.ndim == 3:  # pages and frames are written as a NIfTI of (W, H, N)
        values = values.transpose(2, 1, 0)
    if upright is not None:  # masks lie in the stored orientation, unless they only fit turned already
        turned = np.asarray(upright(values))
        return turned if turned.shape[1:] == image.size else values
    return values


def _picture(path: Path) -> NDArray[np.generic]:
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if values is None:
        raise DataError(f"{path}: mask cannot be read, expected a grey PNG or a NIfTI file. Export it again.")
    if values.ndim == 3:
        if not (values[..., :1] == values[..., :3]).all():
            raise DataError(
                f"{path}: mask is in colour, expected grey values that are labels. Export a label map."
            )
        values = values[..., 0]
    return np.asarray(values)


def _volume(path: Path) -> NDArray[np.generic]:
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        values = np.asarray(nibabel.load(path).dataobj)
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise DataError(f"{path}: mask cannot be read ({error}). Export it again.") from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return values
