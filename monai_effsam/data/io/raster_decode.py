# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pixels of raster files, every page, every depth.

Ordinary 8-bit JPEG and PNG are decoded by OpenCV, which is several times faster, and so are deep colour
pictures, of which Pillow keeps only 8 bits; Pillow knows the rest.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFile, TiffImagePlugin, UnidentifiedImageError

from monai_effsam.data.io.image import MAX_PIXELS, check_size
from monai_effsam.data.io.quiet import quiet
from monai_effsam.errors import DataError

__all__ = ["DAMAGED", "FORMATS", "RawPages", "decode"]

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
"""Pillow's names of what is read (its JPEG includes MPO); its other formats are not opened."""

DAMAGED = (
    OSError, EOFError, ValueError, SyntaxError, MemoryError, LookupError, TypeError, ArithmeticError,
    RuntimeError, AttributeError, struct.error, zlib.error, cv2.error,
)  # fmt: skip
"""What decoders raise on damaged files."""

_WIDTH, _HEIGHT, _BITS, _ORIENTATION = 256, 257, 258, 274
_AS_STORED = ("L", "F", "I")
_MAX_PAGES = 2**16


@dataclass(frozen=True)
class RawPages:
    """What a raster file holds.

    Args:
        pages: (N, h, w) or (N, h, w, 3), any real type.
        orientation: EXIF orientation of the stored pixels.
        is_upright: whether the decoder has turned the pages upright already.
        notes: what the user should know.
    """

    pages: NDArray[Any]
    orientation: int
    is_upright: bool = False
    notes: tuple[str, ...] = ()


def decode(path: Path) -> RawPages:
    """Every page of a raster file.

    Raises:
        DataError: too large, empty, pages of different sizes, or a truncated animation.
        Exception: one of `DAMAGED`, from the decoder.
    """
    content = path.read_bytes()
    if not content:
        raise DataError("file is empty, expected a picture. Copy or export it again.")
    tiff = _tiff_pages(content)
    for height, width, _ in tiff:
        check_size(path, height, width, len(tiff))
    try:
        with quiet():
            picture = Pillow.open(io.BytesIO(content), formats=FORMATS)
    except Pillow.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        size = found[0] if found else "too many"
        raise DataError(
            f"picture has {size} pixels, expected at most {MAX_PIXELS} (such as 8192x8192). Crop or shrink it."
        ) from error
    except UnidentifiedImageError:
        if tiff:
            return _deep(content, tiff[0][2])
        raise DataError(
            "picture cannot be read: its beginning is damaged. Copy or export the file again."
        ) from None
    return _pages(path, content, picture, len(tiff))


def _pages(path: Path, content: bytes, picture: ImageFile.ImageFile, tiff_pages: int) -> RawPages:
    with quiet():
        check_size(path, picture.height, picture.width)
        orientation = int(picture.getexif().get(_ORIENTATION, 1))
        count = int(getattr(picture, "n_frames", 1))
        check_size(path, picture.height, picture.width, count)
    if tiff_pages not in (0, count):
        raise DataError(
            f"file has {count} whole pages of {tiff_pages}: it is truncated. Copy or export it again."
        )
    if picture.format == "GIF" and count > 1 and not content.rstrip(b"\0").endswith(b";"):
        raise DataError("animation has no end mark: it is truncated. Copy or export it again.")
    if count == 1 and (flag := _fast_flag(picture, content)) is not None:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
        if pixels is not None and pixels.dtype == np.uint8:
            return RawPages((pixels if pixels.ndim == 2 else pixels[..., ::-1])[None], orientation)
    if _is_deep_colour(picture, content):
        return _deep(content, orientation)
    with quiet():
        return _pillow_pages(picture, count, orientation)


def _fast_flag(picture: ImageFile.ImageFile, content: bytes) -> int | None:
    """OpenCV's flag for a whole 8-bit grey or RGB JPEG or PNG; None for anything else."""
    if picture.mode not in ("L", "RGB"):
        return None
    if picture.format == "JPEG":
        whole = content.endswith(b"\xff\xd9")
    else:
        whole = picture.format == "PNG" and content[-8:-4] == b"IEND" and content[24] == 8
    colour = cv2.IMREAD_GRAYSCALE if picture.mode == "L" else cv2.IMREAD_COLOR
    return int(colour | cv2.IMREAD_IGNORE_ORIENTATION) if whole else None


def _is_deep_colour(picture: ImageFile.ImageFile, content: bytes) -> bool:
    """Whether Pillow would cut more than 8 bits a channel to 8."""
    if picture.mode not in ("RGB", "RGBA", "LA", "RGBX"):
        return False
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return max(picture.tag_v2.get(_BITS, (8,))) > 8
    return picture.format == "PNG" and content[24] == 16


def _deep(content: bytes, orientation: int) -> RawPages:
    """Deep colour and unusual depths, by OpenCV, which turns a TIFF upright, but not a PNG."""
    buffer = np.frombuffer(content, np.uint8)
    is_tiff = content.startswith((b"II", b"MM"))
    with quiet():
        level = cv2.getLogLevel()
        cv2.setLogLevel(0)
        try:
            if is_tiff:
                done, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)
            else:
                one = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
                done, pages = one is not None, (one,)
        finally:
            cv2.setLogLevel(level)
    if not done or not pages:
        raise DataError(
            "picture has a depth or compression that is not known here, expected up to 32 bits a channel. "
            "Export it as 8- or 16-bit PNG."
        )
    turned = [p[..., [2, 1, 0, *range(3, p.shape[2])]] if p.ndim == 3 else p for p in pages]
    stack, notes = _stack(turned)
    return RawPages(stack, orientation, is_upright=is_tiff, notes=notes)


def _pillow_pages(picture: ImageFile.ImageFile, count: int, orientation: int) -> RawPages:
    pages, turned = list[NDArray[Any]](), set[bool]()
    notes: tuple[str, ...] = ()
    if picture.format == "MPO" and count > 1:
        count, notes = (
            1,
            (f"{count - 1} auxiliary pictures of the file (previews, other views) were left out.",),
        )
    for index in range(count):
        picture.seek(index)
        check_size("picture", picture.height, picture.width)
        before = int(picture.getexif().get(_ORIENTATION, 1)) if picture.format == "TIFF" else orientation
        if before != orientation:
            raise DataError("pages differ in orientation, expected one for all. Split the file.")
        pages.append(_page(picture))
        turned.add(orientation > 1 and int(picture.getexif().get(_ORIENTATION, 1)) != orientation)
    stack, more = _stack(pages)
    return RawPages(stack, orientation, is_upright=turned == {True}, notes=(*notes, *more))


def _page(picture: ImageFile.ImageFile) -> NDArray[Any]:
    """The current page: (h, w) of any type, or (h, w, C) uint8 with C 2 (grey, alpha), 3 or 4 (with alpha)."""
    mode = picture.mode
    if mode in _AS_STORED or mode.startswith("I;16"):
        values = np.asarray(picture)
        return values.astype(values.dtype.newbyteorder("="))
    if mode == "1":
        return np.asarray(picture.convert("L"))
    if mode in ("LA", "La"):
        return np.asarray(picture.convert("LA"))
    if "A" in mode or "a" in mode or "transparency" in picture.info:
        return np.asarray(picture.convert("RGBA"))
    return np.asarray(picture.convert("RGB"))


def _stack(pages: list[NDArray[Any]]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Pages without transparency, one shape and type for all."""
    sizes = sorted({page.shape[:2] for page in pages})
    if len(sizes) > 1:
        listed = ", ".join(f"{h}x{w}" for h, w in sizes[:3])
        raise DataError(f"pages differ in size ({listed}), expected one size for all. Split the file.")
    flat = [_without_alpha(page) for page in pages]
    arrays = [array for array, _ in flat]
    if len({array.ndim for array in arrays}) > 1:
        arrays = [array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2) for array in arrays]
    hidden = any(note for _, note in flat)
    return np.stack(arrays), ("Picture is fully transparent: transparency was ignored.",) if hidden else ()


def _without_alpha(page: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """The page over black, and whether it was wholly transparent (then alpha is ignored)."""
    if page.ndim == 2 or page.shape[2] == 3:
        return page, False
    colour = page[..., 0] if page.shape[2] <= 2 else page[..., :3]
    if page.shape[2] == 1:
        return colour, False
    alpha = page[..., -1]
    opaque = 1 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
    if bool((alpha == opaque).all()):
        return colour, False
    if not alpha.any():
        return colour, True
    weight = alpha.astype(np.float32) / opaque
    over = colour * (weight if colour.ndim == 2 else weight[..., None])
    return (over + 0.5 if alpha.dtype.kind != "f" else over).astype(page.dtype), False


def _tiff_pages(content: bytes) -> list[tuple[int, int, int]]:
    """(h, w, orientation) of each page by the directories of a TIFF; empty for other files.

    Raises:
        DataError: a directory lies behind the end of the file, or there is no end of them.
    """
    if content[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return []
    stream, pages, seen = io.BytesIO(content), list[tuple[int, int, int]](), set[int]()
    directory = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if b"+" in content[:4] else 8])
    offset = directory.next
    while offset and offset not in seen and len(pages) < _MAX_PAGES:
        if offset >= len(content):
            raise DataError("TIFF ends before its pages do: it is truncated. Copy or export it again.")
        seen.add(offset)
        stream.seek(offset)
        with quiet():
            directory.load(stream)
            height, width, orientation = (int(directory.get(t, 1)) for t in (_HEIGHT, _WIDTH, _ORIENTATION))
        pages.append((height, width, orientation))
        offset = directory.next
    return pages
