# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a DICOM data set says beside its pixels: whether it is an image, of what, how large, and where."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from monai_effsam.data.io.image import check_size
from monai_effsam.errors import DataError

__all__ = [
    "DAMAGED", "DICOM_MODALITIES", "affine_of", "check_image", "common_orientation", "first_number", "frame_count",
    "functional", "modality_of", "normal_of", "open_dicom", "orientation_of", "positions_of", "spacing_of",
]  # fmt: skip

DAMAGED = (
    OSError, EOFError, ValueError, LookupError, TypeError, ArithmeticError, RuntimeError, AttributeError,
    MemoryError, struct.error, zlib.error, pydicom.errors.BytesLengthException, pydicom.errors.InvalidDicomError,
)  # fmt: skip
"""What the DICOM reader raises on damaged files."""

DICOM_MODALITIES = {
    "CT": "ct", "MR": "mr", "US": "ultrasound", "DX": "xray", "CR": "xray", "DR": "xray", "RG": "xray",
    "ES": "endoscopy", "OP": "fundus", "XC": "dermoscopy", "DMS": "dermoscopy",
}  # fmt: skip
"""Values of the attribute Modality, and our names of them."""

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_CENTIMETRES = 3


def open_dicom(path: Path, *, tags: Sequence[str] | None = None, pixels: bool = True) -> Any:
    """A data set, lazily parsed; also without preamble. With `tags`, those alone and no pixels.

    Raises:
        Exception: one of `DAMAGED`.
    """
    if tags is None:
        return pydicom.dcmread(path, force=True, stop_before_pixels=not pixels)
    return pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(tags))


def check_image(path: Path, data: Any) -> None:
    """Refuse what is not an image, holds no pixels, or is too large.

    Raises:
        DataError: one line that names what it is.
    """
    uid = data.get("SOPClassUID") or getattr(data, "file_meta", {}).get("MediaStorageSOPClassUID")
    name = str(getattr(uid, "name", ""))
    if name and name != str(uid) and "Image Storage" not in name:
        raise DataError(f"{path}: DICOM object is '{name}', expected an image. Leave it out.")
    if "Whole Slide" in name:
        raise DataError(
            f"{path}: DICOM object is '{name}', which is tiled, expected whole pictures. Export a region."
        )
    if "MOSAIC" in (data.get("ImageType") or ()):
        raise DataError(
            f"{path}: DICOM image is a Siemens mosaic, many slices in one picture, expected one slice. "
            "Convert it to NIfTI, with dcm2niix for example."
        )
    missing = [key for key in ("Rows", "Columns", "BitsAllocated") if not data.get(key)]
    if missing:
        raise DataError(
            f"{path}: DICOM file has no {', '.join(missing)}, expected an image. Export it again."
        )
    if not any(key in data for key in _PIXELS):
        raise DataError(f"{path}: DICOM file has no pixel data, expected an image. Export it again.")
    channels = int(data.get("SamplesPerPixel") or 1)
    check_size(path, int(data.Rows), int(data.Columns), frame_count(data), channels)


def frame_count(data: Any) -> int:
    """Number of frames, 1 where it is not stated."""
    return int(data.get("NumberOfFrames") or 1)


def modality_of(data: Any) -> str | None:
    """Our name of the modality, None where the attribute does not say it (such as OT)."""
    return DICOM_MODALITIES.get(str(data.get("Modality") or "").strip().upper())


def first_number(value: Any) -> float | None:
    """The first number of a value that may be missing, empty or multiple; None where it is none."""
    if value is not None and not isinstance(value, (str, bytes, int, float)) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def functional(data: Any, frame: int, group: str, name: str) -> Any:
    """An attribute of one frame: of its functional group, else of the shared one, else of the data set."""
    per_frame = data.get("PerFrameFunctionalGroupsSequence") or ()
    places = [*per_frame[frame : frame + 1], *(data.get("SharedFunctionalGroupsSequence") or ())]
    for place in places:
        for item in place.get(group) or ():
            if item.get(name) is not None:
                return item.get(name)
    return data.get(name)


def spacing_of(data: Any) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """(row, column) spacing [mm] or None, and a note where it is not that of the body."""
    pair = _pair(functional(data, 0, "PixelMeasuresSequence", "PixelSpacing"))
    if pair is None:
        pair = _pair(data.get("NominalScannedPixelSpacing"))
    if pair is None:
        pair = _ultrasound_spacing(data)
    if pair is None and (pair := _pair(data.get("ImagerPixelSpacing"))):
        return pair, ("Spacing is that of the detector: sizes in mm are larger than in the body.",)
    return pair, ()


def _pair(value: Any) -> tuple[float, float] | None:
    if value is None or not hasattr(value, "__len__") or len(value) != 2:
        return None
    row, column = first_number(value[0]), first_number(value[1])
    return (row, column) if row and column and row > 0 and column > 0 else None


def _ultrasound_spacing(data: Any) -> tuple[float, float] | None:
    """Spacing of the 2D regions, if all agree."""
    found = set()
    for region in data.get("SequenceOfUltrasoundRegions") or ():
        units = {region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")}
        x, y = first_number(region.get("PhysicalDeltaX")), first_number(region.get("PhysicalDeltaY"))
        if region.get("RegionSpatialFormat") == 1 and units == {_CENTIMETRES} and x and y:
            found.add((round(abs(y) * 10, 9), round(abs(x) * 10, 9)))
    return found.pop() if len(found) == 1 else None


def orientation_of(data: Any, frame: int = 0) -> NDArray[np.float64] | None:
    """(2, 3) unit directions of a row and of a column in LPS, None where unknown."""
    value = functional(data, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
    if value is None or len(value) != 6:
        return None
    directions = np.array([float(v) for v in value]).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    crossing = np.linalg.norm(np.cross(directions[0], directions[1]))
    return directions if np.allclose(lengths, 1, atol=0.01) and crossing > 0.9 else None


def common_orientation(data: Any) -> NDArray[np.float64] | None:
    """What `orientation_of` says of every frame, None where any is unknown or crosses the others."""
    first = orientation_of(data)
    if first is None:
        return None
    for frame in range(1, frame_count(data)):
        other = orientation_of(data, frame)
        if other is None or not np.allclose(first, other, atol=1e-3):
            return None
    return first


def normal_of(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) unit normal of a slice in LPS."""
    normal = np.cross(directions[0], directions[1])
    return np.asarray(normal / np.linalg.norm(normal))


def positions_of(data: Any) -> NDArray[np.float64] | None:
    """(N, 3) position of each frame's first pixel in LPS [mm], None where any is unknown."""
    found = []
    for frame in range(frame_count(data)):
        value = functional(data, frame, "PlanePositionSequence", "ImagePositionPatient")
        if value is None or len(value) != 3:
            return None
        found.append([float(v) for v in value])
    return np.array(found)


def affine_of(
    directions: NDArray[np.float64], positions: NDArray[np.float64], spacing: tuple[float, float]
) -> tuple[NDArray[np.float64], float, tuple[str, ...]]:
    """Where a stack lies: (4, 4) affine from (column, row, slice) to LPS, slice step [mm], notes.

    Args:
        directions: (2, 3) of `orientation_of`.
        positions: (N, 3) in the order of the slices, N > 1.
        spacing: (row, column) [mm].

    Raises:
        DataError: the slices do not lie side by side.
    """
    steps = np.diff(positions, axis=0)
    along = steps @ normal_of(directions)
    usual = float(np.median(along))
    if abs(usual) < 1e-3 or (np.sign(along) != np.sign(usual)).any():
        raise DataError("slices do not follow one another in space.")
    odd = np.abs(along - usual) > 0.02 * abs(usual) + 0.01
    notes: tuple[str, ...] = ()
    if odd.any():
        gap = float(np.abs(along[odd]).max())
        found = f"Slices are not evenly spaced ({abs(usual):g} mm, up to {gap:g} mm): some seem to be missing"
        notes = (f"{found}, and the mask's affine is that of an even stack.",)
    affine = np.eye(4)
    affine[:3, 0] = directions[0] * spacing[1]
    affine[:3, 1] = directions[1] * spacing[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    affine[:3, 3] = positions[0]
    return affine, abs(usual), notes
