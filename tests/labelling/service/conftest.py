# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Models that can be checked by hand, and volumes of every orientation with one bright ellipsoid."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest

from monai_effsam.inference import Segmenter
from monai_effsam.inference.runtimes.contract import RawDecoding
from monai_effsam.labelling.service import LabellingService
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import Target

SIDE = 128
SPEC = ImageSpec(size=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), stride=16)
BANDS = (("dim", 7, 0.2), ("middle", 9, 0.45), ("bright", 12, 0.7))
TABLE = tuple(Target(name, "ct", value, (0, 0, 0), "1", name) for name, value, _ in BANDS)


class BrightPiece:
    """A promptable model: the bright pieces that hold a point, or those within the box."""

    name, device, threads = "stub", "cpu", 1

    def __init__(self) -> None:
        self.encoded = 0
        self.model: Any = SimpleNamespace(
            specs={"": SPEC}, targets=TABLE, card={"sha256": "bright"}, path=Path("bright"), promptable=True
        )

    def encode(self, images: Any, modality: int) -> Any:
        self.encoded += len(images)
        return images.mean(axis=1)

    def decode(self, encoded: Any, modality: int, prompt: Any = None) -> RawDecoding:
        bright = (encoded[0] > 0.5).astype(np.uint8)
        pieces = cv2.connectedComponents(bright)[1]
        asked = np.zeros((SIDE, SIDE), bool)
        if prompt.points is not None:
            for (x, y), inside in zip(prompt.points[0], prompt.labels[0], strict=True):
                piece = pieces[min(int(y), SIDE - 1), min(int(x), SIDE - 1)]
                if inside and piece:
                    asked |= pieces == piece
        if prompt.box is not None:
            x0, y0, x1, y1 = prompt.box[0]
            rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
            asked |= (bright > 0) & (columns >= x0) & (columns <= x1) & (rows >= y0) & (rows <= y1)
        if prompt.points is not None:
            for (x, y), inside in zip(prompt.points[0], prompt.labels[0], strict=True):
                if not inside:
                    asked &= pieces != pieces[min(int(y), SIDE - 1), min(int(x), SIDE - 1)]
        logits = np.where(asked, 8.0, -8.0).astype(np.float32)[None, None]
        one = np.ones((1, 1), np.float32)
        return RawDecoding(logits, one * 0.9, one)


class GreyBands:
    """A self-prompting model of three targets of CT, each a band of grey values."""

    name, device, threads = "stub", "cpu", 1

    def __init__(self) -> None:
        self.encoded = 0
        self.model: Any = SimpleNamespace(
            specs={"ct": SPEC}, targets=TABLE, card={"sha256": "bands"}, path=Path("bands"), promptable=False
        )

    def encode(self, images: Any, modality: int) -> Any:
        self.encoded += len(images)
        return images.mean(axis=1)

    def decode(self, encoded: Any, modality: int, prompt: Any = None) -> RawDecoding:
        floors = [floor for _, _, floor in BANDS]
        layers = [
            np.where((encoded[0] >= low) & (encoded[0] < high), 8.0, -8.0)
            for low, high in zip(floors, [*floors[1:], 2.0], strict=True)
        ]
        logits = np.stack(layers).astype(np.float32)[None]
        presence = (logits > 0).any(axis=(2, 3)).astype(np.float32)
        return RawDecoding(logits, np.full((1, 3), 0.75, np.float32), presence)


def small_service(**options: Any) -> LabellingService:
    """A service of CT with both models."""
    return LabellingService(Segmenter(GreyBands()), Segmenter(BrightPiece()), modality="ct", **options)


@pytest.fixture
def service() -> Iterator[LabellingService]:
    made = small_service()
    yield made
    made.close()


def turned(axis: int, degrees: float) -> np.ndarray:
    """A rotation about an axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    a, b = [n for n in range(3) if n != axis]
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = c
    matrix[a, b], matrix[b, a] = -s, s
    return matrix


DIRECTIONS: dict[str, np.ndarray] = {
    "axial": np.diag([-1.0, -1.0, 1.0]),
    "reversed": np.diag([-1.0, -1.0, -1.0]),
    "coronal": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "oblique": turned(0, 25) @ turned(2, 20) @ np.diag([-1.0, -1.0, 1.0]),
    "negative spacing": np.diag([1.0, -1.0, 1.0]),
}
"""Name -> array axes in RAS, one a column."""
CENTRE = (13.0, 30.0, 8.0)
SIZE = (40, 48, 20)


@pytest.fixture(params=[(1.0, 1.0, 2.5), (2.5, 1.0, 1.0)], ids=["cut along k", "cut along i"])
def spacing(request: Any) -> tuple[float, float, float]:
    return tuple(request.param)  # type: ignore[return-value]


@pytest.fixture
def volume(tmp_path: Path) -> Callable[..., Path]:
    """A function: orientation -> NIfTI of a bright ellipsoid about voxel CENTRE, in Hounsfield units."""

    def write(orientation: str = "axial", spacing: Any = (1.0, 1.0, 2.5), name: str = "v.nii.gz") -> Path:
        affine = np.eye(4)
        affine[:3, :3] = DIRECTIONS[orientation] @ np.diag(spacing)
        affine[:3, 3] = (12.0, -30.0, 55.0)
        grid = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), axis=-1)
        inside = (((grid - CENTRE) / (7.0, 9.0, 5.0)) ** 2).sum(axis=-1) < 1
        values = np.where(inside, 200, -110).astype(np.int16)
        values[-3:, -3:, :] = 230  # another bright thing, far off
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / name)
        return tmp_path / name

    return write
