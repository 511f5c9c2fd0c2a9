# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Grey values of any kind to 0..255: windows, percentiles, non-finite values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import DataError, UnknownNameError

__all__ = ["CT_WINDOWS", "non_finite_note", "percentile_range", "scale", "to_uint8", "window_range"]

CT_WINDOWS: dict[str, tuple[float, float]] = {
    "soft_tissue": (400.0, 40.0),
    "lung": (1500.0, -600.0),
    "bone": (1800.0, 400.0),
    "brain": (80.0, 40.0),
}
"""Preset name -> (width, level) in Hounsfield units."""

_CHUNK = 2**22
_SAMPLE = 2**24


def window_range(name: str) -> tuple[float, float]:
    """(lowest, highest) Hounsfield unit of a preset of `CT_WINDOWS`.

    Raises:
        UnknownNameError: no preset bears the name.
    """
    if name not in CT_WINDOWS:
        raise UnknownNameError("CT window", name, CT_WINDOWS)
    width, level = CT_WINDOWS[name]
    return level - width / 2, level + width / 2


def percentile_range(values: NDArray[Any]) -> tuple[float, float]:
    """0.5 and 99.5 percentile of finite values; their minimum and maximum where the two coincide.

    Of more than 2**24 values an evenly spread subset of that order is looked at.
    """
    flat = values.reshape(-1)
    flat = flat[:: max(1, flat.size // _SAMPLE)]
    low, high = np.percentile(flat, (0.5, 99.5), method="nearest")
    if low == high:
        low, high = flat.min(), flat.max()
    return float(low), float(high)


def scale(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """`low`..`high` to 0..255, rounded; values outside are clipped, NaN becomes 0, a flat image 0."""
    result = np.zeros(values.shape, np.uint8)
    if not high > low:
        return result
    kind = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    source, target = values.reshape(-1), result.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        shrink = 1.0 if np.isfinite(kind(high - low)) else 0.5  # the span of huge numbers overflows
        span = high * shrink - low * shrink
        for start in range(0, source.size, _CHUNK):
            part: NDArray[np.floating[Any]] = source[start : start + _CHUNK].astype(kind)
            part = np.nan_to_num(part, copy=False, nan=low, posinf=high, neginf=low)
            part = (part * shrink - low * shrink) / span
            target[start : start + _CHUNK] = np.clip(part * 255 + 0.5, 0, 255).astype(np.uint8)
    return result


def to_uint8(values: NDArray[Any], *, stretch: bool = False) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Any real values to 0..255: 8-bit as they are, others over their 0.5..99.5 percentile range.

    Args:
        values: of any shape.
        stretch: scale wider types also where their values already lie in 0..255 and reach beyond 1; else those
            are only rounded.

    Returns:
        The pixels, same shape, and notes for the user.

    Raises:
        DataError: no value is finite.
    """
    if values.dtype == np.uint8:
        return values, ()
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255), ()
    notes = non_finite_note(values)
    finite = values[np.isfinite(values)] if notes else values.reshape(-1)
    if finite.size == 0:
        raise DataError("pixel values are all NaN or infinite, expected numbers.")
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and 1 < high <= 255 and not stretch:
        return scale(values, 0.0, 255.0), notes
    return scale(values, *percentile_range(finite)), notes


def non_finite_note(values: NDArray[Any]) -> tuple[str, ...]:
    """A note that counts NaN and infinite values, or nothing."""
    if values.dtype.kind != "f":
        return ()
    count = int(values.size - np.count_nonzero(np.isfinite(values)))
    return (f"{count} NaN or infinite values were replaced.",) if count else ()
