# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""DICOM: a single picture, a multi-frame file, or a series as one stack."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import dicom_header as header
from monai_effsam.data.io import dicom_pixels as pixels
from monai_effsam.data.io.grid import GridGeometry, lps_to_ras
from monai_effsam.data.io.image import Image, MaskGeometry, Source, check_size
from monai_effsam.data.io.intensity import scale, to_uint8, window_range
from monai_effsam.data.io.quiet import quiet
from monai_effsam.data.io.raster import PageGeometry
from monai_effsam.errors import DataError

__all__ = ["read_dicom"]


def read_dicom(source: Source, ct_window: str, modality: str | None) -> Image:
    """A DICOM file, or the files of a series in the order of `source`, as stored (not turned).

    CT in Hounsfield units goes through the window; other grey values through the window that the file
    proposes first, else 8-bit as they are and the rest over the 0.5..99.5 percentile. Slices of a series that
    propose different windows are scaled together, by percentiles.

    Raises:
        DataError: not an image, damaged, of a compression that needs another package, or slices that do not
            fit together; one line that says which.
    """
    try:
        with quiet():  # values are parsed, and complained about, at every look at them
            if len(source.paths) == 1:
                return _read_file(source, ct_window, modality)
            return _read_series(source, ct_window, modality)
    except DataError:
        raise
    except header.DAMAGED as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"{source.path}: DICOM cannot be read: {reason}. Export it again.") from error


def _read_file(source: Source, ct_window: str, modality: str | None) -> Image:
    path = source.paths[0]
    data = header.open_dicom(path)
    header.check_image(path, data)
    own = header.modality_of(data)
    try:
        slices, notes = _display(path, data, ct_window, modality or own)
    except DataError as error:
        raise error if str(error).startswith(str(path)) else DataError(f"{path}: {error}") from error
    positions = header.positions_of(data) if len(slices) > 1 else None
    return _image(source, data, slices, positions, notes)


def _display(
    path: Path, data: Any, ct_window: str, modality: str | None
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """All frames of one file as they are shown."""
    frames = pixels.decode(path, data)
    if not _is_grey(data):
        return pixels.to_rgb(path, data, frames), ()
    if pixels.ct_values(data, modality):
        return scale(pixels.grey_values(data, frames), *window_range(ct_window)), ()
    shown, notes = pixels.to_display(data, frames)
    return (np.invert(shown) if pixels.inverted(data) else shown), notes


def _is_grey(data: Any) -> bool:
    name = str(data.get("PhotometricInterpretation") or "MONOCHROME2").strip()
    return name in ("MONOCHROME1", "MONOCHROME2")


def _read_series(source: Source, ct_window: str, modality: str | None) -> Image:
    """Slices of a series as one stack; how grey is shown is decided for all of them together."""
    stack: list[NDArray[Any]] = []
    positions: list[NDArray[np.float64]] = []
    windows = set()
    sample, together = None, False
    for path in source.paths:
        data = header.open_dicom(path)
        header.check_image(path, data)
        check_size(source.path, int(data.Rows), int(data.Columns), len(source.paths))
        if sample is None:
            sample = data
            together = _is_grey(data) and not pixels.ct_values(data, modality or header.modality_of(data))
        windows.add(pixels.voi_window(data))
        if together:
            one: NDArray[Any] = pixels.grey_values(data, pixels.decode(path, data))
        else:
            one = _display(path, data, ct_window, modality or header.modality_of(data))[0]
        where = header.positions_of(data)
        if where is None or len(one) != 1 or (stack and one.shape != stack[0].shape):
            raise DataError(
                f"{path}: slice of shape {one.shape[1:]} does not fit its series, expected one slice of shape "
                f"{(stack or [one])[0].shape[1:]} with a position. Take it out of the folder."
            )
        stack.append(one)
        positions.append(where[0])
    values = np.concatenate(stack)
    shown, notes = _together(sample, values, windows) if together else (values, ())
    return _image(source, sample, shown, np.array(positions), notes)


def _together(
    sample: Any, values: NDArray[Any], windows: Iterable[pixels.Window | None]
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Modality values of a whole series to 0..255, by their common window or their percentiles."""
    common = set(windows)
    window = common.pop() if len(common) == 1 else None
    shown, notes = to_uint8(values, stretch=True) if window is None else (window(values), ())
    return (np.invert(shown) if pixels.inverted(sample) else shown), notes


def _image(
    source: Source,
    data: Any,
    slices: NDArray[np.uint8],
    positions: NDArray[np.float64] | None,
    notes: tuple[str, ...],
) -> Image:
    spacing, more = header.spacing_of(data)
    geometry, step, placed = _geometry(data, len(slices), spacing, positions)
    return Image(
        path=source.path,
        name=source.name,
        slices=np.ascontiguousarray(slices),
        modality=header.modality_of(data),
        spacing_mm=spacing,
        slice_step_mm=step,
        kind="dicom",
        is_volume=step is not None,
        geometry=geometry,
        sources=source.paths,
        notes=(*notes, *more, *placed),
    )


def _geometry(
    data: Any, count: int, spacing: tuple[float, float] | None, positions: NDArray[np.float64] | None
) -> tuple[MaskGeometry, float | None, tuple[str, ...]]:
    """How the mask is written, slice step [mm] where the slices lie side by side, notes."""
    if count == 1:
        return PageGeometry(), None, ()
    row, column = spacing or (1.0, 1.0)
    directions = header.common_orientation(data)
    plain = np.diag([column, row, 1.0, 1.0])
    if directions is None or positions is None:
        return GridGeometry(lps_to_ras(plain)), None, ()
    try:
        affine, step, notes = header.affine_of(directions, positions, (row, column))
    except DataError as error:
        note = f"Frames are in file order without a place in space: {error}"
        return GridGeometry(lps_to_ras(plain)), None, (note,)
    return GridGeometry(lps_to_ras(affine)), step, notes
