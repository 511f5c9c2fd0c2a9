# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures to give to commands."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Writes a noisy PNG; size is (H, W)."""

    def write(name: str = "a.png", size: tuple[int, int] = (40, 60)) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(len(name)).integers(0, 256, (*size, 3), np.uint8))
        return path

    return write
