# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Small DICOM files made on the spot, and the decoders that the core installs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from monai_effsam.data.io import Image, read_image
from monai_effsam.errors import DataError

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "ES": "1.2.840.10008.5.1.4.1.1.77.1.1",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}

Maker = Callable[..., Path]


@pytest.fixture
def make_dicom(tmp_path: Path) -> Maker:
    """A function that writes a DICOM file: pixels (H, W), (N, H, W) or (..., 3), and any attributes."""

    def make(name: str, pixels: np.ndarray, modality: str = "OT", **attributes: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = attributes.get("SOPClassUID", CLASSES.get(modality, CLASSES["OT"]))
        meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.Modality = meta.MediaStorageSOPClassUID, modality
        colour = pixels.ndim > 2 and pixels.shape[-1] == 3
        data.SamplesPerPixel = 3 if colour else 1
        data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        if colour:
            data.PlanarConfiguration = 0
        frames = pixels.shape[: pixels.ndim - 2 - colour]
        if frames:
            data.NumberOfFrames = frames[0]
        data.Rows, data.Columns = pixels.shape[len(frames) : len(frames) + 2]
        data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
        data.HighBit = data.BitsStored - 1
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        data.is_little_endian, data.is_implicit_VR = True, False
        data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
        for key, value in attributes.items():
            setattr(data, key, value)
        data.save_as(path, write_like_original=False)
        return path

    return make


@pytest.fixture
def core_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the decoders that the core depends on, whatever else is installed here."""
    ours = ("numpy_handler", "pillow_handler", "rle_handler")
    handlers = [h for h in pydicom.config.pixel_data_handlers if h.__name__.endswith(ours)]
    monkeypatch.setattr(pydicom.config, "pixel_data_handlers", handlers)


@pytest.fixture(scope="session")
def read_or_reason() -> Callable[[Path], Image | str]:
    """A function that reads a file, or gives the text of the DataError that refused it."""

    def read(path: Path) -> Image | str:
        try:
            return read_image(path)
        except DataError as error:
            return str(error)

    return read


@pytest.fixture
def make_instance(make_dicom: Maker) -> Maker:
    """A function that writes a DICOM file with an identity: study 1.2.3, series 1.2.3.1, instance 1.2.3.1.N."""

    def write(name: str, pixels: np.ndarray, modality: str, number: int = 1, **attributes: Any) -> Path:
        known = {
            "StudyInstanceUID": "1.2.3",
            "SeriesInstanceUID": "1.2.3.1",
            "SOPInstanceUID": f"1.2.3.1.{number}",
        }
        return make_dicom(
            name, pixels, modality, **{**known, "PatientID": "P7", "SeriesNumber": 4, **attributes}
        )

    return write


@pytest.fixture
def make_series(make_instance: Maker, tmp_path: Path) -> Callable[..., Image]:
    """A function that writes slices of a CT series, in the order of their heights along the normal, and reads them."""

    def write(
        heights: Sequence[float], orientation: Sequence[float] = (1, 0, 0, 0, 1, 0), **attributes: Any
    ) -> Image:
        normal = np.cross(orientation[:3], orientation[3:])
        known = {"FrameOfReferenceUID": "1.2.3.9", "SliceThickness": 2.5, "PixelSpacing": [0.75, 0.5]}
        for number, height in enumerate(heights, 1):
            place = [round(float(v), 6) for v in np.array([-10, 20, 5]) + height * normal]
            make_instance(f"series/{number:03}.dcm", np.full((9, 7), number, np.int16), "CT", number, **{
                **known, "ImageOrientationPatient": list(orientation), "ImagePositionPatient": place,
                "RescaleSlope": 1, "RescaleIntercept": 0, "InstanceNumber": number, **attributes,
            })  # fmt: skip
        return read_image(tmp_path / "series")

    return write


@pytest.fixture
def some_mask() -> Callable[..., np.ndarray]:
    """A function: random pixels of two targets; a second slice shows nothing, a third one target."""

    def make(image: Image, values: Sequence[int] = (12, 17), seed: int = 3) -> np.ndarray:
        random = np.random.default_rng(seed)
        mask = random.choice(np.array([0, *values], np.uint8), (len(image), *image.size))
        mask[1:2] = 0
        mask[2:3][mask[2:3] == values[0]] = 0
        return mask

    return make
