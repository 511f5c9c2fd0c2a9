# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The demo's pictures as DICOM studies, for models that want to see something: a body in CT and in MR, a breast lesion.

Who made the pictures is told in demo/CREDITS.md. The endoscopy is drawn here.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import generate_uid

from .studies import Study, file_header, put_grey, put_rgb, save  # noqa: TID252  tests are no package on the path

PICTURES = Path(__file__).parents[3] / "demo" / "images"


TO_LEARN_FROM = {
    "US2": "malignant_044",
    "US3": "malignant_068",
    "US4": "000_HC",
    "US5": "042_HC",
    "US6": "137_HC",
}
"""Ultrasound pictures for a training."""


def demo_studies(folder: Path) -> dict[str, Study]:
    """CT stored from top to bottom, MR, ultrasound, endoscopy in colour; more of ultrasound to learn from."""
    more = {name: _picture(folder / name, "US", _grey(file), name) for name, file in TO_LEARN_FROM.items()}
    return {
        "CT": _volume(folder / "CT", "CT", PICTURES / "ct_body.nii.gz", range(13, 21), "Abdomen"),
        "MR": _volume(folder / "MR", "MR", PICTURES / "mr_body.nii.gz", range(8, 14), "Abdomen"),
        "US": _picture(folder / "US", "US", _grey("benign_040"), "Breast"),
        "ES": _picture(folder / "ES", "ES", colon(), "Colon"),
        **more,
    }


def _grey(name: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(PICTURES / f"{name}.jpg").convert("L"))


def colon() -> NDArray[np.uint8]:
    """(288, 352, 3): a drawn fold of gut with a round polyp at its left, seen through a round lens."""
    y, x = np.mgrid[:288, :352].astype(np.float64)
    away = np.hypot((x - 190) / 150, (y - 130) / 120)
    wall = 215 - 90 * away + 18 * np.sin(away * 14 + 2 * np.arctan2(y - 130, x - 190))
    wall = np.clip(wall, 40, 235) * np.where(away < 0.28, 0.25 + 2.6 * away, 1)
    picture = np.stack([wall, 0.48 * wall, 0.38 * wall], axis=-1)
    inside = ((x - 115) / 42) ** 2 + ((y - 185) / 34) ** 2
    light = np.clip(1.25 - 0.55 * inside + 0.25 * ((115 - x) + (185 - y)) / 90, 0, 1.3)
    picture[(inside >= 1) & (inside < 1.35)] *= 0.6
    picture[inside < 1] = (light[..., None] * [225, 105, 90])[inside < 1]
    picture[((x - 100) / 7) ** 2 + ((y - 170) / 5) ** 2 < 1] = 250
    picture += np.random.default_rng(3).normal(0, 2, picture.shape)
    picture[np.hypot((x - 176) / 170, (y - 144) / 140) > 1] = 0
    return np.clip(picture, 0, 255).astype(np.uint8)


def _volume(folder: Path, modality: str, source: Path, slices: range, name: str) -> Study:
    """Axial slices of a NIfTI, turned to LPS; CT with the last slice as image number one."""
    folder.mkdir()
    image = nib.as_closest_canonical(nib.load(source))
    values = np.asarray(image.dataobj, dtype=np.float64)[::-1, ::-1].transpose(2, 1, 0)
    values = np.ascontiguousarray(values[slices.start : slices.stop])
    spacing = [float(v) for v in image.header.get_zooms()[:3]]
    origin = np.array([-150.0, -120.0, 40.0])
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    files = []
    for k, one in enumerate(values):
        data = file_header(modality, study, series, len(values) - k if modality == "CT" else k + 1)
        data.PatientName, data.StudyDescription, data.SeriesDescription = f"{name}^{modality}", name, name
        data.FrameOfReferenceUID, data.ImageOrientationPatient = frame, [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = (origin + np.array([0, 0, k * spacing[2]])).tolist()
        data.PixelSpacing, data.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        if modality == "CT":
            data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -1024, 1, "HU"
        data.WindowCenter, data.WindowWidth = (40, 400) if modality == "CT" else (350, 700)
        put_grey(data, np.clip(one + (1024 if modality == "CT" else 0), 0, 4095).astype(np.uint16), bits=16)
        files.append(save(data, folder / f"{k:03d}.dcm"))
    return Study(modality, modality, study, series, tuple(files), values, np.diag(spacing), origin)


def _picture(folder: Path, modality: str, pixels: NDArray[np.uint8], name: str) -> Study:
    folder.mkdir()
    study, series = generate_uid(), generate_uid()
    data = file_header(modality, study, series, 1)
    data.PatientName, data.StudyDescription, data.SeriesDescription = f"{name}^{modality}", name, name
    data.PatientID = folder.name
    (put_rgb if pixels.ndim == 3 else put_grey)(data, pixels, 8)
    grey = pixels.reshape(*pixels.shape[:2], -1).mean(axis=-1)[None]
    return Study(modality, modality, study, series, (save(data, folder / "0.dcm"),), grey, None, None)
