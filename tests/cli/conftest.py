# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A small model with random weights in a file, and pictures."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.pt` of an `EspMedSam` that finds every target present."""
    import torch

    from monai_effsam.checkpoints import save_model
    from monai_effsam.networks.nets import EspMedSam
    from monai_effsam.specs import ImageSpec

    torch.manual_seed(0)
    options = {"encoder": {"name": "timm", "model": "mobilenetv2_035", "embed_channels": 32}}
    network = EspMedSam(**options)
    network.presence_shift.fill_(9.0)
    specs = {name: ImageSpec(size=64) for name in network.modalities}
    return save_model(tmp_path_factory.mktemp("model") / "model.pt", network, specs, options)


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Writes a noisy PNG; size is (H, W)."""

    def write(name: str = "a.png", size: tuple[int, int] = (40, 60)) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(len(name)).integers(0, 256, (*size, 3), np.uint8))
        return path

    return write
