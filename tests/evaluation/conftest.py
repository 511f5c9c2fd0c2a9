# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A tiny data root whose scores are known, and a network that outlines what is bright."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
import torch
from torch import nn

from monai_effsam.inference import Segmenter
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import TARGETS, targets_of

SIDE = 32
SPEC = ImageSpec(SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Bands(nn.Module):
    """Target k of a modality is what is brighter than 0.3 + 0.2 k: its pixels, at full size."""

    def __init__(self) -> None:
        super().__init__()
        self.targets = TARGETS
        self.modalities = tuple(dict.fromkeys(t.modality for t in TARGETS))
        self.weight = nn.Parameter(torch.ones(1))

    def encode(self, image: torch.Tensor, modality: torch.Tensor) -> Any:
        return SimpleNamespace(embedding=image.mean(1, keepdim=True) * self.weight, skips=())

    def decode(self, encoded: Any, modality: int) -> Any:
        grey = encoded.embedding
        count = len(targets_of(self.modalities[modality]))
        levels = torch.tensor([0.3 + 0.2 * k for k in range(count)]).view(1, -1, 1, 1)
        logits = (grey - levels) * torch.arange(1, count + 1).view(1, -1, 1, 1) * 40
        presence = torch.where((grey > levels).any(-1).any(-1), 0.9, 0.1)
        return SimpleNamespace(
            mask_logits=logits, quality=torch.full((len(grey), count), 0.75), presence=presence
        )


class Obedient(Bands):
    """Fills the box; of points it makes discs of radius 3.5, inside or outside. Nothing without a prompt."""

    def decode(
        self, encoded: Any, modality: int, points: Any = None, labels: Any = None, boxes: Any = None
    ) -> Any:
        count = len(targets_of(self.modalities[modality]))
        y, x = torch.meshgrid(*[torch.arange(SIDE) + 0.5] * 2, indexing="ij")
        mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        if boxes is not None:
            x0, y0, x1, y1 = boxes[0]
            mask |= (x > x0) & (x < x1) & (y > y0) & (y < y1)
        for place, label in () if points is None else zip(points[0], labels[0], strict=True):
            disc = (x - place[0]) ** 2 + (y - place[1]) ** 2 <= 3.5**2
            mask = mask | disc if label == 1 else mask & ~disc
        logits = torch.where(mask, 9.0, -9.0).expand(1, count, SIDE, SIDE)
        told = torch.full((1, count), 0.5)
        return SimpleNamespace(mask_logits=logits, quality=told, presence=told)


@pytest.fixture
def segmenter(tmp_path: Path) -> Segmenter:
    return with_network(Bands(), tmp_path)


@pytest.fixture
def obedient(tmp_path: Path) -> Segmenter:
    return with_network(Obedient(), tmp_path)


def with_network(network: Bands, tmp_path: Path) -> Segmenter:
    model: Any = SimpleNamespace(
        network=network,
        specs=dict.fromkeys(network.modalities, SPEC),
        targets=TARGETS,
        card={"sha256": "ab" * 32},
        path=tmp_path / "toy" / "models" / "model.pt",
        promptable=False,
    )
    return Segmenter(TorchRuntime(model))


def block(top: int, rows: int, value: int) -> np.ndarray:
    """(SIDE, SIDE) with a block of `rows` rows and 16 columns."""
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[top : top + rows, 8:24] = value
    return pixels


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Breast pictures with Dice 1, 2/3 and 0, two normal ones of which one gets an outline, and one volume.

    Grey 100 is a breast lesion to the network, 200 a fetal head; in MR, scaled to its range, 100 is myocardium.
    """
    root = tmp_path / "data"
    pictures = {  # name: (picture, label, group, class)
        "exact": (block(8, 8, 100), block(8, 8, 1), "p1", "benign"),
        "half": (block(8, 8, 100), block(8, 16, 1), "p1", "benign"),
        "missed": (block(8, 8, 0), block(8, 8, 1), "p2", "malignant"),
        "clear": (block(8, 8, 20), block(8, 8, 0), "p3", "normal"),
        "fooled": (block(8, 8, 100), block(8, 8, 0), "p4", "normal"),
        "foreign": (block(8, 8, 200), block(8, 8, 1), "p5", "benign"),
        "trained": (block(8, 8, 100), block(8, 8, 1), "p6", "benign"),
    }
    folder = root / "busi"
    rows = []
    for name, (picture, label, group, kind) in pictures.items():
        for part, pixels in (("images", picture), ("masks", label)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / part / f"{name}.png"), pixels)
        split = "train" if name == "trained" else "val"
        rows.append([f"images/{name}.png", f"masks/{name}.png", split, group, kind])
    write_table(folder / "splits.csv", ["image", "mask", "split", "case", "label_class"], rows)
    write_volume(root / "ours")
    write_table(
        root / "targets.csv",
        ["set", "modality", "target", "label_value"],
        [["busi", "ultrasound", "breast_lesion", "1"], ["ours", "mr", "myocardium", "3"]],
    )
    return root


def write_table(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def write_volume(folder: Path) -> None:
    """Two slices, on one of which the label is twice as large as what is bright."""
    folder.mkdir()
    bright = np.stack([block(8, 8, 100), block(8, 8, 100)], axis=-1)
    label = np.stack([block(8, 8, 3), block(8, 16, 3)], axis=-1)
    for name, pixels in (("image", bright), ("label", label)):
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), folder / f"{name}.nii.gz")
    write_table(folder / "splits.csv", ["image", "mask", "split"], [["image.nii.gz", "label.nii.gz", "val"]])


@pytest.fixture
def read_csv() -> Callable[[Path], list[dict[str, str]]]:
    return lambda path: list(csv.DictReader(path.read_text().splitlines()))
