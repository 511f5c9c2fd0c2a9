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
_HU_MEDIAN = 500.0
_LARGEST_HEADER = 544  # of NIfTI-2, with the bytes that announce extensions
_MAX_EXTENSIONS = 2**26


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

    Values of a CT (`modality` says so; unless it says anything, a minimum under -500 and a median under 500) go
    through the window, all others over the 0.5..99.5 percentile of the volume.

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
        reason = " ".join(str(error).split()).partition(" from ")[0].rstrip(".") or type(error).__name__
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
    if modality != "ct" and not (modality is None and _looks_like_ct(finite)):
        low, high = percentile_range(finite)
    return scale(values, low, high), notes


def _looks_like_ct(values: NDArray[Any]) -> bool:
    """Whether there is air, and most is air or soft tissue; a million values tell."""
    sample = values.ravel()[:: max(1, values.size >> 20)]
    return bool(values.min() < _HU_BELOW) and float(np.median(sample)) < _HU_MEDIAN


def _damaged() -> tuple[type[Exception], ...]:
    """What nibabel and gzip raise on damaged files."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    return (OSError, EOFError, ValueError, TypeError, ArithmeticError, MemoryError, zlib.error, HeaderDataError,
            ImageFileError, WrapStructError)  # fmt: skip


def _load(path: Path) -> tuple[Any, NDArray[Any]]:
    """Header and (X, Y, Z[, 3]) values, the stored scaling applied."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        data: Any = gzip.GzipFile(fileobj=file) if packed else file
        header = _header(path, data)
        if _is_colour_vector(header):
            return _load_vector(path, header, data)
        shape = _check_shape(path, header)
        if header.get_data_dtype().fields:
            raw = header.raw_data_from_fileobj(data)
            colours = np.stack([raw[name] for name in ("R", "G", "B")], axis=-1)
            return header, colours.reshape(*shape, 3)
        values = np.asarray(header.data_from_fileobj(data))
    if values.dtype == np.float64 and header.get_data_dtype().itemsize <= 4:
        values = values.astype(np.float32)
    return header, values.reshape(shape)


def _is_colour_vector(header: Any) -> bool:
    """Whether voxels are 8-bit RGB or RGBA vectors, as ITK and SimpleITK write colour: (X, Y, Z, 1, 3)."""
    shape = header.get_data_shape()
    return len(shape) == 5 and shape[3] == 1 and shape[4] in (3, 4) and header.get_data_dtype() == np.uint8


def _load_vector(path: Path, header: Any, file: Any) -> tuple[Any, NDArray[Any]]:
    """As `_load`; the header comes back as that of a plain volume, for the mask. Transparency is not read."""
    x, y, z = (int(n) for n in header.get_data_shape()[:3])
    check_size(path, x * y * z // max(1, max(x, y, z)), 1, max(x, y, z), 4)
    values = np.asarray(header.raw_data_from_fileobj(file)).reshape(header.get_data_shape())
    header.set_data_shape((x, y, z))
    header.set_intent("none")
    return header, values[:, :, :, 0, :3]


def _header(path: Path, file: IO[bytes]) -> Any:
    """The header with its extensions, small faults mended without a word.

    Raises:
        DataError: the extensions could exhaust the memory.
    """
    import nibabel

    start = file.read(_LARGEST_HEADER)
    is_second = 540 in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
    kind = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
    bare = kind(start[: kind.sizeof_hdr], check=False)
    before_voxels = int(bare["vox_offset"]) if np.isfinite(bare["vox_offset"]) else 0
    if before_voxels > _MAX_EXTENSIONS:
        raise DataError(
            f"{path}: header is {before_voxels} bytes long, expected at most {_MAX_EXTENSIONS}. "
            "Strip its extensions."
        )
    rest = max(0, before_voxels - len(start))
    header = kind.from_fileobj(io.BytesIO(start + file.read(rest)), check=False)
    file.seek(0)
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
