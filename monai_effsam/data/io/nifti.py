# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""NIfTI-1 and NIfTI-2, one file, plain or compressed, 2D and 3D."""

from __future__ import annotations

import gzip
import io
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io.grid import SliceView, nifti_bytes, slice_view, spacing_of
from monai_effsam.data.io.image import Image, Source, check_size
from monai_effsam.data.io.intensity import non_finite_note, percentile_range, scale, window_range
from monai_effsam.data.io.quiet import quiet
from monai_effsam.errors import DataError

__all__ = ["NiftiGeometry", "read_nifti", "volume_to_uint8"]

_HU_BELOW = -500.0


@dataclass(frozen=True, eq=False)
class NiftiGeometry:
    """The header of a NIfTI file and the way its array was cut into slices.

    Args:
        header: nibabel's header of the input.
        shape: of the stored array, as the mask gets it.
        view: array axes -> slices.
    """

    header: Any
    shape: tuple[int, ...]
    view: SliceView

    @property
    def suffix(self) -> str:
        """Always a compressed NIfTI."""
        return ".nii.gz"

    def encode(self, mask: NDArray[np.uint8]) -> bytes:
        """NIfTI content with the input's shape, affine and codes, from a mask (N, H, W) in reading order."""
        return nifti_bytes(np.asarray(self.view.undo(mask)).reshape(self.shape), None, self.header)


def read_nifti(source: Source, ct_window: str, modality: str | None) -> Image:
    """A NIfTI file as slices across its acquisition axis.

    Values of a CT (`modality` says so, or a minimum under -500) go through the window, all others over the
    0.5..99.5 percentile of the volume.

    Raises:
        DataError: truncated, damaged, more than three dimensions, or complex numbers.
    """
    path = source.path
    try:
        with quiet():
            header, values = _load(path)
            affine = np.asarray(header.get_best_affine(), np.float64)
    except DataError:
        raise
    except _damaged() as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"{path}: NIfTI cannot be read: {reason}. Copy or export the file again.") from error
    if not np.isfinite(affine).all():
        raise DataError(
            f"{path}: affine holds NaN or infinite numbers, expected millimetres. Repair the header."
        )
    shape = tuple(int(n) for n in header.get_data_shape())
    view = slice_view(values.shape[:3], affine, 2 if len(shape) == 2 else header.get_dim_info()[2])
    pixels, notes = volume_to_uint8(values, ct_window, modality, path)
    slices = np.ascontiguousarray(view.slices(pixels))
    spacing = spacing_of(affine)
    step, row, column = (spacing[axis] for axis in view.order)
    return Image(
        path=path,
        name=source.name,
        slices=slices,
        modality=None,
        spacing_mm=(row, column) if row > 0 and column > 0 else None,
        slice_step_mm=step if step > 0 and len(slices) > 1 else None,
        kind="nifti",
        is_volume=len(slices) > 1,
        geometry=NiftiGeometry(header, shape, view),
        sources=source.paths,
        notes=notes,
    )


def volume_to_uint8(
    values: NDArray[Any], ct_window: str, modality: str | None, path: Path
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Voxel values to 0..255: CT by window, 8-bit colour as it is, others by percentiles of the volume.

    Raises:
        DataError: no value is finite.
    """
    low, high = window_range(ct_window)
    if values.ndim == 4:
        return values, ()
    notes = non_finite_note(values)
    finite = values[np.isfinite(values)] if notes else values
    if finite.size == 0:
        raise DataError(f"{path}: voxel values are all NaN or infinite, expected numbers. Export it again.")
    is_ct = modality == "ct" or (modality is None and bool(finite.min() < _HU_BELOW))
    if not is_ct:
        low, high = percentile_range(finite)
    return scale(values, low, high), notes


def _damaged() -> tuple[type[Exception], ...]:
    """What nibabel and gzip raise on damaged files."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    return (OSError, EOFError, ValueError, TypeError, ArithmeticError, MemoryError, zlib.error, HeaderDataError,
            ImageFileError)  # fmt: skip


def _load(path: Path) -> tuple[Any, NDArray[Any]]:
    """Header and (X, Y, Z[, 3]) values, the stored scaling applied."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = io.BytesIO(gzip.GzipFile(fileobj=file).read(1024) if packed else file.read(1024))
        header = _header(stream)
        shape = _check_shape(path, header)
        file.seek(0)
        data: Any = gzip.GzipFile(fileobj=file) if packed else file
        if header.get_data_dtype().fields:
            raw = header.raw_data_from_fileobj(data)
            colours = np.stack([raw[name] for name in ("R", "G", "B")], axis=-1)
            return header, colours.reshape(*shape, 3)
        values = np.asarray(header.data_from_fileobj(data))
    if values.dtype == np.float64 and header.get_data_dtype().itemsize <= 4:
        values = values.astype(np.float32)
    return header, values.reshape(shape)


def _header(stream: IO[bytes]) -> Any:
    """The header, small faults mended without a word."""
    import nibabel

    start = stream.read(4)
    stream.seek(0)
    is_second = 540 in (int.from_bytes(start, "little"), int.from_bytes(start, "big"))
    kind = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
    header = kind.from_fileobj(stream, check=False)
    mute = logging.Logger("header")
    mute.addHandler(logging.NullHandler())
    header.check_fix(logger=mute)
    return header


def _check_shape(path: Path, header: Any) -> tuple[int, int, int]:
    """(X, Y, Z) of what can be read.

    Raises:
        DataError: any other number of dimensions, or numbers that are no grey values.
    """
    shape = tuple(int(n) for n in header.get_data_shape())
    kind = header.get_data_dtype()
    if kind.kind == "c" or kind.itemsize > 8:
        raise DataError(
            f"{path}: voxels are {header['datatype']} ({kind}), expected real numbers or RGB. Convert it."
        )
    full = (*shape, 1, 1)
    if len(shape) < 2 or any(n != 1 for n in shape[3:]):
        raise DataError(
            f"{path}: volume has {len(shape)} dimensions {shape}, expected 2 or 3. Split it into single volumes."
        )
    x, y, z = full[:3]
    channels = 3 if kind.fields else 1
    check_size(path, x * y * z // max(1, max(x, y, z)), 1, max(x, y, z), channels)
    return x, y, z
