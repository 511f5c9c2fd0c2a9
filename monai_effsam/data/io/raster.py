# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""PNG, JPEG, TIFF, BMP, WebP and GIF of any depth, one page or many.

Ordinary 8-bit JPEG and PNG are decoded by OpenCV, which is several times faster; Pillow knows the rest.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFile

from monai_effsam.data.io.grid import nifti_bytes
from monai_effsam.data.io.image import Image, Source, check_size
from monai_effsam.data.io.intensity import to_uint8
from monai_effsam.data.io.quiet import quiet
from monai_effsam.errors import DataError

__all__ = ["FORMATS", "PageGeometry", "read_raster"]

FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "BMP", "WEBP", "GIF")
_ORIENTATION = 0x0112
_BITS = 258
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    MemoryError,
    KeyError,
    IndexError,
    TypeError,
    RuntimeError,
)


@dataclass(frozen=True)
class PageGeometry:
    """Stored orientation of a picture, and whether the file has several pages.

    Args:
        orientation: EXIF orientation 1..8 of the stored pixels.
        pages: number of pages; several are written as a NIfTI of (W, H, pages).
    """

    orientation: int = 1
    pages: int = 1

    @property
    def suffix(self) -> str:
        """A PNG for one page, a NIfTI for several."""
        return ".png" if self.pages == 1 else ".nii.gz"

    def upright(self, pages: NDArray[Any]) -> NDArray[Any]:
        """(N, h, w[, 3]) as stored -> (N, H, W[, 3]) upright, a view."""
        swap, rows, columns = _TURNS[self.orientation]
        turned = pages.swapaxes(1, 2) if swap else pages
        return turned[:, :: -1 if rows else 1, :: -1 if columns else 1]

    def stored(self, mask: NDArray[Any]) -> NDArray[Any]:
        """(N, H, W) upright -> (N, h, w) as stored, a view; the inverse of `upright`."""
        swap, rows, columns = _TURNS[self.orientation]
        flipped = mask[:, :: -1 if rows else 1, :: -1 if columns else 1]
        return flipped.swapaxes(1, 2) if swap else flipped

    def encode(self, mask: NDArray[np.uint8]) -> bytes:
        """File content from a mask (N, H, W) in reading order."""
        pages = np.ascontiguousarray(self.stored(mask))
        if self.pages > 1:
            return nifti_bytes(pages.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]))
        return cv2.imencode(".png", pages[0], [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


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


def read_raster(source: Source) -> Image:
    """A picture upright, or every page of a multi-page file.

    Raises:
        DataError: not a picture, damaged, too large, or pages that differ in size.
    """
    path = source.path
    try:
        content = path.read_bytes()
        pages, orientation, notes = _decode(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise DataError(f"{path}: picture is too large: {error}") from error
    except _DAMAGED as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: picture cannot be read: {reason}. Copy or export the file again."
        ) from error
    geometry = PageGeometry(orientation, len(pages))
    return Image(
        path=path,
        name=source.name,
        slices=np.ascontiguousarray(geometry.upright(pages)),
        modality=None,
        spacing_mm=None,
        slice_step_mm=None,
        kind="raster",
        is_volume=False,
        geometry=geometry,
        sources=source.paths,
        notes=notes,
    )


def _decode(content: bytes) -> tuple[NDArray[np.uint8], int, tuple[str, ...]]:
    """Pages (N, h, w[, 3]) as stored, EXIF orientation, notes."""
    if not content:
        raise DataError("file is empty, expected a picture. Copy or export it again.")
    with quiet():
        picture = Pillow.open(io.BytesIO(content), formats=FORMATS)
        width, height = picture.size
        check_size("picture", height, width)
        orientation = int(picture.getexif().get(_ORIENTATION, 1))
        orientation = orientation if orientation in _TURNS else 1
        fast = _fast_flag(picture, content)
    if fast is not None:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), fast)
        if pixels is not None and pixels.dtype == np.uint8:
            return (pixels if pixels.ndim == 2 else pixels[..., ::-1])[None], orientation, ()
    with quiet():
        return _pillow_pages(picture, orientation)


def _fast_flag(picture: ImageFile.ImageFile, content: bytes) -> int | None:
    """The flag of OpenCV for a whole 8-bit grey or RGB JPEG or PNG, None for anything else."""
    if getattr(picture, "n_frames", 1) != 1 or picture.mode not in ("L", "RGB"):
        return None
    whole = content.endswith(b"\xff\xd9") if picture.format == "JPEG" else content[-8:-4] == b"IEND"
    if not whole or picture.format not in ("JPEG", "PNG") or (picture.format == "PNG" and content[24] != 8):
        return None
    colour = cv2.IMREAD_GRAYSCALE if picture.mode == "L" else cv2.IMREAD_COLOR
    return int(colour | cv2.IMREAD_IGNORE_ORIENTATION)


def _pillow_pages(
    picture: ImageFile.ImageFile, orientation: int
) -> tuple[NDArray[np.uint8], int, tuple[str, ...]]:
    pages = []
    for index in range(getattr(picture, "n_frames", 1)):
        picture.seek(index)
        pages.append(
            np.asarray(picture.convert("RGB") if picture.mode not in ("L", "I;16", "F", "I") else picture)
        )
    pixels, notes = to_uint8(np.stack(pages))
    return pixels, orientation, notes
