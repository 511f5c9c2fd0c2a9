# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A network that can be checked by hand: it outlines what is bright."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_effsam.inference import Segmenter
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import TARGETS, targets_of


@pytest.fixture(autouse=True)
def no_router(monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody's pictures look like is asked only where a test brings a router."""
    monkeypatch.setattr("monai_effsam.inference.modality.shipped_router", lambda: None)


SPEC = ImageSpec(size=64, resize="longest", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), stride=16)


class Thresholds(nn.Module):
    """Target k of a modality is what is brighter than 0.3 + 0.2 k; it is present if a pixel is.

    A box makes a target of its inside, a point of the pixels within 8 model pixels; as an `EspMedSam` otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.targets = TARGETS
        self.modalities = tuple(dict.fromkeys(t.modality for t in TARGETS))
        self.weight = nn.Parameter(torch.ones(1))
        self.batches: list[int] = []

    def encode(self, image: torch.Tensor, modality: torch.Tensor) -> Any:
        assert image.shape[1:] == (3, 64, 64)
        assert len(modality) == len(image)
        self.batches.append(len(image))
        return SimpleNamespace(embedding=F.avg_pool2d(image.mean(1, keepdim=True), 2), skips=())

    def decode(
        self, encoded: Any, modality: int, *, points: Any = None, labels: Any = None, boxes: Any = None
    ) -> Any:
        grey = encoded.embedding  # (B, 1, 32, 32)
        count = len(targets_of(self.modalities[modality]))
        levels = torch.tensor([0.3 + 0.2 * k for k in range(count)]).view(1, -1, 1, 1)
        logits = (grey - levels) * torch.arange(1, count + 1).view(1, -1, 1, 1) * 40
        y, x = torch.meshgrid(torch.arange(32) * 2 + 1, torch.arange(32) * 2 + 1, indexing="ij")
        if boxes is not None:
            x0, y0, x1, y1 = boxes[0]
            inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
            logits = torch.where(inside, 9.0, -9.0).expand(len(grey), count, 32, 32)
        elif points is not None:
            near = (x - points[0, 0, 0]) ** 2 + (y - points[0, 0, 1]) ** 2 < 64
            logits = torch.where(near == (labels[0, 0] == 1), 9.0, -9.0).expand(len(grey), count, 32, 32)
        presence = torch.where((grey > levels).any(-1).any(-1), 0.9, 0.1)
        quality = torch.linspace(0.8, 0.4, count).expand(len(grey), count)
        return SimpleNamespace(mask_logits=logits, quality=quality, presence=presence)


@pytest.fixture
def model() -> SimpleNamespace:
    """What `load_model` would return."""
    network = Thresholds()
    specs = dict.fromkeys(network.modalities, SPEC)
    return SimpleNamespace(
        network=network, specs=specs, targets=TARGETS, card={}, path=Path("model.pt"), promptable=False
    )


@pytest.fixture
def segmenter(model: Any) -> Segmenter:
    return Segmenter(TorchRuntime(model))


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Writes a dark PNG with a bright block, rows 10-30, columns 20-40."""

    def write(name: str = "block.png", *, size: tuple[int, int] = (48, 64), grey: int = 255) -> Path:
        pixels = np.zeros(size, np.uint8)
        pixels[10:30, 20:40] = grey
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels)
        return path

    return write


@pytest.fixture
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """Records of the results file in a folder."""
    return lambda out: [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
