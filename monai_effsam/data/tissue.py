# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The intensity rule `tissue`: the grey values of a CT picture stretched over its soft tissue."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["stretch_tissue"]

_MARGIN = 0.25  # of the tissue's range, left below and above it
_SHARE = 0.25  # the least share of the body that a brighter class must hold to be the body itself
_GAP = 0.28  # how much brighter it must be: fat and muscle lie closer, air and muscle further apart
_WHITE = 0.003  # the least share of the body, bone, that lies at the upper end of a window


def stretch_tissue(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture whose soft tissue uses most of the 256 grey values; one that was windowed to do so already stays.

    A CT slice scaled from its darkest to its brightest pixel gives the organs a few grey values between air and bone.
    Otsu's threshold ("A threshold selection method from gray-level histograms", 1979) parts body and air; where the
    scanner filled the corners outside its field of view with something darker than air, a second threshold does. The
    body's 5..95 percentile range and a quarter of it on either side are stretched over 0..255.
    Slices scaled by their extremes have next to no white pixels, those seen through a window have their bones white.

    Args:
        rgb: (H, W, 3), 0..255; its green channel tells the range.

    Returns:
        (H, W, 3) uint8.
    """
    counts = np.bincount(rgb[..., 1].reshape(-1), minlength=256)
    body = _above(counts, _threshold(counts))
    is_windowed = body[250:].sum() >= _WHITE * body.sum()  # also where there is no body at all
    if is_windowed:
        return rgb
    low, high = _range(body)
    brighter = _above(body, _threshold(body))
    gap = _mean(brighter) - _mean(body - brighter)
    if brighter.sum() >= _SHARE * body.sum() and gap > _GAP * _mean(brighter):
        low, high = _range(brighter)
    span = max(high - low, 4)
    level = (np.arange(256) - low + _MARGIN * span) / ((1 + 2 * _MARGIN) * span)
    table = np.clip(level * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(rgb, table), np.uint8)


def _threshold(counts: npt.NDArray[np.int64]) -> int:
    """Otsu's threshold of a histogram: the grey value that parts it into the two most different classes."""
    below = counts.cumsum()
    above = below[-1] - below
    moment = (counts * np.arange(len(counts))).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (moment / below - (moment[-1] - moment) / above) ** 2.0
    return int(np.nan_to_num(between).argmax())


def _above(counts: npt.NDArray[np.int64], threshold: int) -> npt.NDArray[np.int64]:
    """The histogram of the pixels above a threshold."""
    return np.where(np.arange(len(counts)) > threshold, counts, 0)


def _range(counts: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Its 5 and 95 percentile."""
    low, high = np.searchsorted(counts.cumsum(), np.array([0.05, 0.95]) * counts.sum())
    return int(low), int(high)


def _mean(counts: npt.NDArray[np.int64]) -> float:
    return float((counts * np.arange(len(counts))).sum() / max(1, counts.sum()))
