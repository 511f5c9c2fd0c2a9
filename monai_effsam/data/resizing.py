# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The `interpolation` rules of an `ImageSpec`: pictures resized as the makers of some weights resized theirs."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from monai_effsam.specs import Interpolation

__all__ = ["resized"]

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.float64]

_POLE = np.sqrt(3.0) - 2.0  # of the filter that turns samples into coefficients of a cubic B-spline
_REACH = 24  # cells after which that filter has fallen below one part in 1e13
_SIGMAS = 4.0  # where SciPy cuts a Gaussian


def resized(rgb: Pixels, size: tuple[int, int], rule: Interpolation) -> Pixels:
    """A picture (H, W, 3) at another `size` (H, W), pixel centres kept in register.

    Args:
        rgb: (H, W, 3), 0..255.
        size: wanted (H, W) [px].
        rule: see `ImageSpec.interpolation`.
    """
    if rule == "pillow":
        return _with_pillow(rgb, size)
    if rule == "spline":
        return _with_spline(rgb, size)
    shrinks = size[0] <= rgb.shape[0] and size[1] <= rgb.shape[1]
    method = cv2.INTER_AREA if shrinks or rule == "area" else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (size[1], size[0]), interpolation=method), np.uint8)


def _with_pillow(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    """Pillow's bilinear filter, which segment-anything uses through torchvision; it widens where it shrinks."""
    from PIL import Image

    small = Image.fromarray(np.ascontiguousarray(rgb)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(small, np.uint8)


def _with_spline(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    """What scikit-image's `resize(order=3, anti_aliasing=True)` gives, cut to whole grey values.

    A Gaussian of sigma (factor - 1) / 2 on each side that shrinks, then the cubic B-spline through the pixels,
    mirrored about the centres of the border pixels.
    """
    factors = (rgb.shape[0] / size[0], rgb.shape[1] / size[1])
    smooth = [_gaussian(max(0.0, (factor - 1) / 2)) for factor in factors]
    inverse = 6 * _POLE / (_POLE**2 - 1) * _POLE ** np.abs(np.arange(-_REACH, _REACH + 1))
    low, high = rgb.min(), rgb.max()
    out = np.empty((*size, 3), np.uint8)
    for channel in range(3):  # one at a time, to stay small in memory
        levels = _filtered(rgb[..., channel].astype(np.float64), *smooth)
        levels = _filtered(levels, inverse, inverse)
        for axis in (0, 1):
            levels = _spline_along(levels, size[axis], axis)
        out[..., channel] = np.clip(levels, low, high)  # cut, not rounded
    return out


def _gaussian(sigma: float) -> Levels:
    """A normalised Gaussian, cut at four sigma; a single 1 for sigma 0."""
    reach = int(_SIGMAS * sigma + 0.5)
    if reach == 0:
        return np.ones(1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum(), np.float64)


def _filtered(levels: Levels, down: Levels, across: Levels) -> Levels:
    """(H, W) filtered along rows and columns, mirrored at the border."""
    rows, columns = len(down) // 2, len(across) // 2
    padded = np.pad(levels, ((rows, rows), (columns, columns)), mode="reflect")
    out = cv2.sepFilter2D(padded, cv2.CV_64F, across, down)
    return np.asarray(out[rows : rows + levels.shape[0], columns : columns + levels.shape[1]], np.float64)


def _spline_along(coefficients: Levels, size: int, axis: int) -> Levels:
    """The B-spline of these coefficients at `size` places along an axis."""
    length = coefficients.shape[axis]
    place = (np.arange(size) + 0.5) * length / size - 0.5
    cell = np.floor(place)
    t = place - cell
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    shape = (size, 1) if axis == 0 else (1, size)
    out = np.zeros(1)
    for step, weight in enumerate(weights, start=-1):
        neighbours = np.take(coefficients, _mirrored(cell.astype(np.int64) + step, length), axis)
        out = out + neighbours * (weight / 6).reshape(shape)
    return out


def _mirrored(index: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Indices beyond 0..length-1 folded back at the centres of the first and last pixel."""
    period = max(1, 2 * (length - 1))
    folded = np.abs(index) % period
    return np.asarray(np.where(folded >= length, period - folded, folded), np.int64)
