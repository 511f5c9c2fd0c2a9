# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A labelled folder and a recipe small enough to train in a test."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

TINY = {
    "encoder": {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2},
    "decoder": {"mlp_dim": 32, "hyper_dim": 16, "channels": [16, 8, 8]},
    "sizes": {"endoscopy": 64, "ultrasound": 32},
    "batch_area": 2 * 64 * 64,
    "held_out": 0.0,
    "epoch_length": 3,
    "epochs": 3,
}


def write_set(root: Path, name: str, count: int, value: int = 1) -> None:
    """`count` pictures of a bright disk, the last two of them for validation."""
    random = np.random.RandomState(count)
    rows = []
    for i in range(count):
        mask = np.zeros((40, 52), np.uint8)
        cv2.circle(mask, (int(random.randint(15, 37)), int(random.randint(15, 25))), 9, value, -1)
        picture = (random.rand(40, 52, 3) * 60 + 120 * (mask[..., None] > 0)).astype(np.uint8)
        for folder, file, content in (("images", f"{i}.png", picture), ("masks", f"{i}.png", mask)):
            (root / name / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / name / folder / file), content)
        rows.append([f"images/{i}.png", f"masks/{i}.png", "val" if i >= count - 2 else "train", f"p{i}", ""])
    with (root / name / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "mask", "split", "case", "label_class"], *rows])


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of two modalities."""
    root = tmp_path_factory.mktemp("data")
    write_set(root, "polyps", 8)
    write_set(root, "scans", 6, value=2)
    (root / "targets.csv").write_text(
        "set,modality,target,label_value\npolyps,endoscopy,polyp,1\nscans,ultrasound,breast_lesion,2\n"
    )
    return root


@pytest.fixture
def tiny_recipe() -> dict[str, object]:
    """Fields of a recipe that trains in a second."""
    return dict(TINY)
