# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures to look at: the image with its mask, outlined and filled by 40 %."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io.image import Image
from monai_effsam.data.io.write import write_bytes
from monai_effsam.errors import ShapeError

__all__ = ["draw_overlay", "draw_sheet", "write_overlay"]

_FILL = 0.4
_LONGEST = 2048
_TILE = 256
_TILES = 16
_OTHER = (255, 255, 255)


def draw_overlay(
    rgb: NDArray[np.uint8], mask: NDArray[np.uint8], colours: Mapping[int, tuple[int, int, int]]
) -> NDArray[np.uint8]:
    """The picture with each value of the mask outlined, and filled by 40 %, in its colour.

    Args:
        rgb: (H, W, 3) uint8; not changed.
        mask: (H, W) uint8, 0 is "none".
        colours: mask value -> 8-bit RGB; white for values that are not in it.

    Returns:
        (H, W, 3) uint8.
    """
    table = np.zeros((256, 3), np.uint8)
    table[1:] = _OTHER
    for value, colour in colours.items():
        table[value] = colour
    result = rgb.copy()
    thickness = max(1, round(max(mask.shape) / 500))
    x, y, width, height = cv2.boundingRect(
        mask
    )  # all that changes lies within; most pictures are mostly background
    part = (slice(y, y + height), slice(x, x + width))
    result[part] = _painted(rgb[part], np.ascontiguousarray(mask[part]), table, thickness)
    return result


def _painted(
    rgb: NDArray[np.uint8], mask: NDArray[np.uint8], table: NDArray[np.uint8], thickness: int
) -> NDArray[np.uint8]:
    """Pixels with their values filled and outlined in the table's colours; outside of them there is background."""
    if not mask.size:
        return rgb
    paint = table[mask]
    filled = cv2.addWeighted(rgb, 1 - _FILL, paint, _FILL, 0)
    kernel = np.ones((2 * thickness + 1, 2 * thickness + 1), np.uint8)
    inner = cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(0.0,))
    outer = cv2.dilate(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(0.0,))
    outline = (mask > 0) & ((inner != mask) | (outer != mask))
    result = np.where((mask > 0)[..., None], filled, rgb)
    result[outline] = paint[outline]
    return result


def write_overlay(
    image: Image, mask: NDArray[np.uint8], colours: Mapping[int, tuple[int, int, int]], out_dir: Path
) -> Path:
    """Write NAME_overlay.png: one picture, or of a stack the up to 16 slices that hold most of the mask.

    Args:
        image: as `read_image` gave it.
        mask: (N, H, W) uint8, in the order and the way up of `image.slices`.
        colours: mask value -> 8-bit RGB.
        out_dir: folder, made where it is missing.

    Returns:
        The file; at most 2048 pixels a side (a montage: tiles of 256).

    Raises:
        ShapeError: the mask has another shape than the image's slices ask for.
        UsageError: the overlay would overwrite the input.
        DataError: the system refuses to write.
    """
    picture = draw_sheet(image, mask, colours)
    content = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    return write_bytes(out_dir / f"{image.name}_overlay.png", content, image.sources or (image.path,))


def draw_sheet(
    image: Image, mask: NDArray[np.uint8], colours: Mapping[int, tuple[int, int, int]] | None
) -> NDArray[np.uint8]:
    """What `write_overlay` writes, as (H, W, 3) uint8.

    Args:
        image: as `read_image` gave it.
        mask: (N, H, W) uint8, in the order and the way up of `image.slices`.
        colours: mask value -> 8-bit RGB; None leaves the mask out, to show the input beside its overlay.

    Raises:
        ShapeError: the mask has another shape than the image's slices ask for.
    """
    expected = (len(image), *image.size)
    if mask.shape != expected:
        raise ShapeError(f"draw_sheet: mask is {mask.shape}, expected {expected}. Pass one value a pixel.")
    if len(image) == 1:
        return _drawn(image, mask, colours, 0, _LONGEST, enlarge=False)
    return _montage([_drawn(image, mask, colours, i, _TILE, enlarge=True) for i in _chosen(mask)])


def _chosen(mask: NDArray[np.uint8]) -> list[int]:
    """Indices of the slices to show, ascending: those with most foreground, evenly spread ones if there is none."""
    count = min(_TILES, len(mask))
    area = np.count_nonzero(mask, axis=(1, 2))
    if not area.any():
        return [int(i) for i in np.linspace(0, len(mask) - 1, count).round()]
    most = np.argsort(-area, kind="stable")[:count]
    return sorted(int(i) for i in most if area[i])


def _drawn(
    image: Image,
    mask: NDArray[np.uint8],
    colours: Mapping[int, tuple[int, int, int]] | None,
    index: int,
    longest: int,
    *,
    enlarge: bool,
) -> NDArray[np.uint8]:
    height, width = image.size
    factor = longest / max(height, width)
    rgb, one = image.rgb(index), np.ascontiguousarray(mask[index])
    if factor < 1 or enlarge:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=how), np.uint8)
        one = np.asarray(cv2.resize(one, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    return rgb if colours is None else draw_overlay(rgb, one, colours)


def _montage(tiles: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Tiles of one size, side by side in as square a grid as fits."""
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].shape[:2]
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for index, tile in enumerate(tiles):
        y, x = divmod(index, columns)
        sheet[y * height : (y + 1) * height, x * width : (x + 1) * width] = tile
    return sheet
