# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""PNG, JPEG, TIFF, BMP, WebP and GIF, one page or many, upright for the reader and as stored for the mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io.grid import nifti_bytes
from monai_effsam.data.io.image import Image, Source
from monai_effsam.data.io.intensity import to_uint8
from monai_effsam.data.io.raster_decode import DAMAGED, decode
from monai_effsam.errors import DataError

__all__ = ["PageGeometry", "read_raster"]

# EXIF orientation -> (swap rows and columns, then flip rows, then flip columns) that shows it upright.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True)
class PageGeometry:
    """Stored orientation of a picture, and whether the file has several pages.

    Args:
        orientation: EXIF orientation 1..8 of the stored pixels; any other number means 1.
        pages: number of pages; several are written as a NIfTI of (w, h, pages).
    """

    orientation: int = 1
    pages: int = 1

    @property
    def suffix(self) -> str:
        """A PNG for one page, a NIfTI for several."""
        return ".png" if self.pages == 1 else ".nii.gz"

    def upright(self, pages: NDArray[Any]) -> NDArray[Any]:
        """(N, h, w[, 3]) as stored -> (N, H, W[, 3]) upright, a view."""
        swap, rows, columns = _TURNS.get(self.orientation, _TURNS[1])
        turned = pages.swapaxes(1, 2) if swap else pages
        return turned[:, :: -1 if rows else 1, :: -1 if columns else 1]

    def stored(self, mask: NDArray[Any]) -> NDArray[Any]:
        """(N, H, W[, 3]) upright -> (N, h, w[, 3]) as stored, a view; the inverse of `upright`."""
        swap, rows, columns = _TURNS.get(self.orientation, _TURNS[1])
        flipped = mask[:, :: -1 if rows else 1, :: -1 if columns else 1]
        return flipped.swapaxes(1, 2) if swap else flipped

    def encode(self, mask: NDArray[np.uint8]) -> bytes:
        """File content from a mask (N, H, W) in reading order."""
        pages = np.ascontiguousarray(self.stored(mask))
        if self.pages > 1:
            return nifti_bytes(pages.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]))
        return cv2.imencode(".png", pages[0], [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


def read_raster(source: Source) -> Image:
    """A picture upright, or every page of a multi-page file.

    Transparency is laid over black (ignored where all is transparent). 16-bit and float values go over the
    0.5..99.5 percentile of the file to 0..255, unless they lie there already.

    Raises:
        DataError: not a picture, damaged, too large, no finite value, or pages that differ in size.
    """
    path = source.path
    try:
        raw = decode(path)
        pixels, notes = to_uint8(raw.pages)
    except DataError as error:
        raise error if str(error).startswith(str(path)) else DataError(f"{path}: {error}") from error
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: picture cannot be read: {reason.rstrip('.')}. Copy or export the file again."
        ) from error
    geometry = PageGeometry(raw.orientation, len(pixels))
    return Image(
        path=path,
        name=source.name,
        slices=np.ascontiguousarray(pixels if raw.is_upright else geometry.upright(pixels)),
        modality=None,
        spacing_mm=None,
        slice_step_mm=None,
        kind="raster",
        is_volume=False,
        geometry=geometry,
        sources=source.paths,
        notes=raw.notes + notes,
    )
