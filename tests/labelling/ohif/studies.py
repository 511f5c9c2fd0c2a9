# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Small DICOM studies, and their grids as ITK would read them, worked out here without the code under test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "ES": "1.2.840.10008.5.1.4.1.1.77.1.1",
}


@dataclass(frozen=True)
class Study:
    """One series of a study, in files.

    Args:
        name: of it here.
        modality: of DICOM.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        files: in the order of the slices of `pixels`.
        pixels: (slices, rows, columns) of brightness, slices along their normal.
        directions: step of column, row and slice index [mm, LPS]; None where the pictures lie nowhere.
        origin: of the first slice [mm, LPS].
    """

    name: str
    modality: str
    study: str
    series: str
    files: tuple[Path, ...]
    pixels: NDArray[np.float64]
    directions: NDArray[np.float64] | None
    origin: NDArray[np.float64] | None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        slices, rows, columns = self.pixels.shape
        return columns, rows, slices


def blob(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """A bright ellipsoid off the middle, on a gradient; nothing about it is symmetric."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    depth = max(shape[0] / 4, 1.0)
    away = ((x - shape[2] * 0.4) / (shape[2] / 5)) ** 2 + ((y - shape[1] * 0.6) / (shape[1] / 6)) ** 2
    away = away + ((z - shape[0] * 0.3) / depth) ** 2 * (shape[0] > 1)
    return np.where(away < 1, 200.0, 20.0 + 60.0 * x / shape[2])


def make_studies(folder: Path) -> dict[str, Study]:
    """CT with oblong pixels, stored from top to bottom; an oblique MR; a grey US; a colour endoscopy."""
    axial = np.eye(3)
    turned, _ = np.linalg.qr(np.array([[1.0, 0.2, 0.1], [-0.15, 0.9, 0.3], [0.1, -0.35, 1.0]]))
    turned[:, 2] = np.cross(turned[:, 0], turned[:, 1])
    return {
        "CT": _volume(folder / "ct", "CT", (12, 48, 64), axial, (0.8, 1.5, 2.5), backwards=True),
        "MR": _volume(folder / "mr", "MR", (10, 40, 40), turned, (1.2, 1.2, 3.0), backwards=False),
        "US": _picture(folder / "us", "US", (60, 90), colour=False),
        "ES": _picture(folder / "es", "ES", (70, 84), colour=True),
    }


def _volume(
    folder: Path,
    modality: str,
    shape: tuple[int, int, int],
    axes: NDArray[np.float64],
    spacing: tuple[float, float, float],
    *,
    backwards: bool,
) -> Study:
    folder.mkdir()
    pixels = blob(shape)
    origin = np.array([-31.0, 12.0, -40.0])
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    files = []
    for k, one in enumerate(pixels):
        data = file_header(modality, study, series, shape[0] - k if backwards else k + 1)
        data.FrameOfReferenceUID = frame
        data.ImagePositionPatient = [round(float(v), 6) for v in origin + k * spacing[2] * axes[:, 2]]
        data.ImageOrientationPatient = [round(float(v), 8) for v in (*axes[:, 0], *axes[:, 1])]
        data.PixelSpacing = [spacing[1], spacing[0]]
        data.SliceThickness = spacing[2]
        if modality == "CT":
            data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -1024, 1, "HU"
        data.WindowCenter, data.WindowWidth = (100, 300) if modality == "CT" else (120, 240)
        put_grey(data, one.astype(np.uint16) + (1024 if modality == "CT" else 0), bits=16)
        files.append(save(data, folder / f"{k:03d}.dcm"))
    directions = (axes * np.array(spacing)).T
    return Study(modality, modality, study, series, tuple(files), pixels, directions, origin)


def _picture(folder: Path, modality: str, shape: tuple[int, int], *, colour: bool) -> Study:
    folder.mkdir()
    pixels = blob((1, *shape))
    study, series = generate_uid(), generate_uid()
    data = file_header(modality, study, series, 1)
    if colour:
        red = pixels[0].astype(np.uint8)
        put_rgb(data, np.stack([red, red // 2, 255 - red], axis=-1), 8)
    else:
        put_grey(data, pixels[0].astype(np.uint8), 8)
    return Study(modality, modality, study, series, (save(data, folder / "0.dcm"),), pixels, None, None)


def file_header(modality: str, study: str, series: str, number: int) -> Dataset:
    """What every image of the tests tells."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CLASSES[modality], generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    data.Modality, data.PatientName, data.PatientID = modality, f"Test^{modality}", f"P-{modality}"
    data.PatientBirthDate = data.PatientSex = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.StudyDate, data.StudyTime, data.StudyID = "20200102", "101112", "1"
    data.StudyDescription, data.SeriesDescription = f"{modality} of the tests", f"{modality} series"
    data.SeriesNumber, data.InstanceNumber, data.Manufacturer = 1, number, "tests"
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    return data


def put_grey(data: Dataset, content: NDArray[np.unsignedinteger], bits: int) -> None:
    """(rows, columns) as the pixels of a file."""
    data.Rows, data.Columns = content.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    _put(data, content, bits)


def put_rgb(data: Dataset, content: NDArray[np.unsignedinteger], bits: int) -> None:
    """(rows, columns, 3) as the pixels of a file."""
    data.Rows, data.Columns, data.SamplesPerPixel = content.shape
    data.PhotometricInterpretation, data.PlanarConfiguration = "RGB", 0
    _put(data, content, bits)


def _put(data: Dataset, content: NDArray[np.unsignedinteger], bits: int) -> None:
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits, bits - 1, 0
    data.PixelData = content.tobytes() + b"\0" * (content.nbytes % 2)


def save(data: Dataset, path: Path) -> Path:
    """A file of it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), data, file_meta=meta, preamble=b"\0" * 128)
    file.is_little_endian, file.is_implicit_VR = True, False
    file.save_as(path, write_like_original=False)
    return path
