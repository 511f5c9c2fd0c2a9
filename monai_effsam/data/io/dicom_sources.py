# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a DICOM object derived from images says of them: identity, patient, and where each frame lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.valuerep import VR, validate_value

from monai_effsam.data.io import dicom_header as header
from monai_effsam.data.io.image import Image
from monai_effsam.errors import DataError

__all__ = ["SourceImages", "read_sources"]

_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_TEXTS = (
    "PatientID", "PatientName", "AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyDescription",
    "IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod",
)  # fmt: skip
_FORMATTED = {"PatientBirthDate": VR.DA, "StudyDate": VR.DA, "StudyTime": VR.TM, "PatientAge": VR.AS}
_REQUIRED = (
    "PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
    "ReferringPhysicianName",
)  # fmt: skip
_LOSSY = {"1.2.840.10008.1.2.4.50": "ISO_10918_1", "1.2.840.10008.1.2.4.51": "ISO_10918_1"}
_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, eq=False)
class SourceImages:
    """Headers of the images that a mask was made of, without what may be wrong or missing in the files.

    Args:
        headers: a data set a file, in the order of the image's slices. Every frame has a place: its own, or
            frame k lies at (0, 0, k) mm of a frame of reference that nobody else knows.
        is_placed: whether the places are the files' own.
        has_thickness: whether the slice thickness is the files', or follows from their distance, and not 1 mm.
        series_number: of the first file, 0 where it has none.
        frames: place of each frame in the image's slices, by instance UID and frame number from 1.
        classes: SOP class of each instance, by instance UID. In `headers` all are Secondary Capture, whose modules
            are known: files may be of retired or private classes, or lack what their class demands.
    """

    headers: tuple[Dataset, ...]
    is_placed: bool
    has_thickness: bool
    series_number: int
    frames: dict[tuple[str, int], int]
    classes: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Frame:
    """Where a frame says that it lies, None for what it does not say."""

    position: Sequence[float] | None
    orientation: Sequence[float] | None


@dataclass(frozen=True, eq=False)
class _File:
    """A file's clean header, its frames, and all that it says itself."""

    header: Dataset
    frames: Sequence[_Frame]
    data: Any


def read_sources(image: Image, frame_size: tuple[int, int]) -> SourceImages:
    """Read the headers of an image's files again.

    A frame has a place if the file names a frame of reference, and position, orientation and spacing of all
    frames; frames that lie on one another (a heart at several times) have none.

    Args:
        image: of kind "dicom".
        frame_size: (rows, columns) that the headers tell.

    Raises:
        DataError: a file that cannot be read, or lacks an identity that could be referred to.
    """
    files, classes = list[_File](), dict[str, str]()
    for path in image.sources:
        data = header.open_dicom(path, pixels=False)
        file = _File(_identity(path, data), _frames(data), data)
        instance = str(file.header.SOPInstanceUID)
        if instance in classes:
            raise DataError(
                f"{path}: DICOM file has the SOPInstanceUID of another slice, expected its own. Export the series "
                "again, or do without the DICOM-SEG."
            )
        classes[instance] = str(file.header.SOPClassUID)
        file.header.Rows, file.header.Columns = frame_size
        files.append(file)
    sizes = {(int(file.data.Rows), int(file.data.Columns)) for file in files}
    if sizes != {image.size} or sum(len(file.frames) for file in files) != len(image):
        raise DataError(f"{image.path}: DICOM files have changed since they were read. Start again.")
    first = files[0].data
    spacing = _body_spacing(first)
    is_placed = spacing is not None and _have_places(files)
    thickness = _thickness(first) or image.slice_step_mm if is_placed else None
    return SourceImages(
        headers=tuple(file.header for file in files),
        is_placed=is_placed,
        has_thickness=thickness is not None,
        series_number=max(0, int(header.first_number(first.get("SeriesNumber")) or 0)),
        frames=_place_all(files, is_placed, spacing or (1.0, 1.0), thickness or 1.0),
        classes=classes,
    )


def _place_all(
    files: Sequence[_File], is_placed: bool, spacing: tuple[float, float], thickness: float
) -> dict[tuple[str, int], int]:
    """Give every frame its place or lend it one; returns the order of frames by instance UID and number."""
    reference = str(files[0].data.FrameOfReferenceUID) if is_placed else uid.generate_uid()
    order = dict[tuple[str, int], int]()
    for file in files:
        before, count = len(order), len(file.frames)
        lent = [_Frame((0.0, 0.0, float(before + k)), _AXIAL) for k in range(count)]
        order.update({(str(file.header.SOPInstanceUID), k + 1): before + k for k in range(count)})
        file.header.FrameOfReferenceUID = reference
        _place(file.header, file.frames if is_placed else lent, spacing, thickness)
    return order


def _identity(path: Path, data: Any) -> Dataset:
    """A header with all that a derived object copies or refers to.

    Raises:
        DataError: the instance cannot be referred to.
    """
    one = Dataset()
    for key in _IDENTITY:
        value = data.get(key) or getattr(data, "file_meta", {}).get(f"MediaStorage{key}")
        if not value:
            raise DataError(
                f"{path}: DICOM file has no {key}, expected one that a DICOM-SEG can refer to. "
                "Export it again, or do without the DICOM-SEG."
            )
        setattr(one, key, uid.UID(str(value)))
    one.Modality = str(data.get("Modality") or "OT")
    for key in _TEXTS:
        if (value := data.get(key)) is not None or key in _REQUIRED:
            setattr(one, key, str(value or ""))
    for key, kind in _FORMATTED.items():
        value = str(data.get(key) or "")
        if _is_valid(kind, value) and (value or key in _REQUIRED):
            setattr(one, key, value)
        elif key in _REQUIRED:
            setattr(one, key, "")
    sex = str(data.get("PatientSex") or "")
    one.PatientSex = sex if sex in ("M", "F", "O") else ""
    _copy_lossiness(path, data, one)
    return one


def _is_valid(kind: VR, value: str) -> bool:
    from pydicom import config

    try:
        validate_value(kind, value, config.RAISE)
    except ValueError:
        return False
    return True


def _copy_lossiness(path: Path, data: Any, one: Dataset) -> None:
    """Lossy compression leaves its trace in everything derived; what the file does not tell is counted."""
    syntax = str(getattr(data, "file_meta", {}).get("TransferSyntaxUID") or "")
    lossy = str(data.get("LossyImageCompression") or "") == "01" or syntax in _LOSSY
    one.LossyImageCompression = "01" if lossy else "00"
    if not lossy:
        return
    bits = (
        int(data.Rows) * int(data.Columns) * int(data.get("SamplesPerPixel") or 1) * int(data.BitsAllocated)
    )
    counted = round(bits * header.frame_count(data) / 8 / max(1, path.stat().st_size), 2)
    one.LossyImageCompressionRatio = data.get("LossyImageCompressionRatio") or max(counted, 1.0)
    one.LossyImageCompressionMethod = data.get("LossyImageCompressionMethod") or _LOSSY.get(
        syntax, "ISO_10918_1"
    )


def _frames(data: Any) -> list[_Frame]:
    places = [
        ("PlanePositionSequence", "ImagePositionPatient", 3),
        ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
    ]
    found = []
    for frame in range(header.frame_count(data)):
        values = [header.functional(data, frame, group, name) for group, name, _ in places]
        good = [
            v if v is not None and len(v) == n else None for v, (*_, n) in zip(values, places, strict=True)
        ]
        found.append(_Frame(*good))
    return found


def _have_places(files: Sequence[_File]) -> bool:
    """Whether all frames are parallel, in one frame of reference, and no two at one position."""
    references = {str(file.data.get("FrameOfReferenceUID") or "") for file in files}
    if "" in references or len(references) != 1:
        return False
    frames = [frame for file in files for frame in file.frames]
    if any(frame.position is None or frame.orientation is None for frame in frames):
        return False
    positions = np.array([frame.position for frame in frames], np.float64)
    orientations = np.array([frame.orientation for frame in frames], np.float64)
    rows, columns = np.split(orientations[0], 2)
    return (
        len(np.unique(positions, axis=0)) == len(frames)
        and bool(np.allclose(orientations, orientations[0], atol=1e-3))
        and bool(np.linalg.norm(np.cross(rows, columns)) > 0.9)
    )


def _body_spacing(data: Any) -> tuple[float, float] | None:
    """(row, column) spacing in the body [mm]; that of a detector does not count."""
    spacing, notes = header.spacing_of(data)
    return None if notes else spacing


def _thickness(data: Any) -> float | None:
    value = header.first_number(header.functional(data, 0, "PixelMeasuresSequence", "SliceThickness"))
    return value if value is not None and value > 0 else None


def _place(one: Dataset, frames: Sequence[_Frame], spacing: tuple[float, float], thickness: float) -> None:
    """Write the places of a file's frames into its header: as a single picture, or as functional groups."""
    from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence

    if len(frames) == 1:
        one.SOPClassUID = uid.SecondaryCaptureImageStorage
        one.ImagePositionPatient = list(frames[0].position or ())
        one.ImageOrientationPatient = list(frames[0].orientation or ())
        one.PixelSpacing, one.SliceThickness = list(spacing), thickness
        return
    one.SOPClassUID = uid.MultiFrameTrueColorSecondaryCaptureImageStorage
    one.NumberOfFrames = len(frames)
    shared = Dataset()
    shared.PixelMeasuresSequence = PixelMeasuresSequence(spacing, thickness)
    shared.PlaneOrientationSequence = PlaneOrientationSequence("PATIENT", list(frames[0].orientation or ()))
    one.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for frame in frames:
        group = Dataset()
        group.PlanePositionSequence = PlanePositionSequence("PATIENT", list(frame.position or ()))
        groups.append(group)
    one.PerFrameFunctionalGroupsSequence = groups
