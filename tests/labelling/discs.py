# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures of one bright disc each, and where it is: what a small model learns in seconds."""

import csv
from pathlib import Path

import cv2
import numpy as np


def write_disc(path: Path, number: int) -> np.ndarray:
    """Write picture number `number`; its label (64, 64), 1 inside the disc."""
    random = np.random.RandomState(number)
    label = np.zeros((64, 64), np.uint8)
    cv2.circle(label, tuple(int(v) for v in random.randint(20, 44, 2)), int(random.randint(8, 16)), 1, -1)
    picture = random.randint(0, 60, (64, 64, 3)).astype(np.uint8)
    picture[label > 0] += 150
    cv2.imwrite(str(path), picture)
    return label


def write_set(data: Path, train: int, test: int) -> Path:
    """The set `discs` below `data`, of endoscopy with the target polyp; its folder."""
    folder = data / "discs"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    with (data / "targets.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["set", "modality", "target", "label_value"], ["discs", "endoscopy", "polyp", 1]]
        )
    rows = [["image", "mask", "split", "case", "label_class"]]
    for n in range(train + test):
        label = write_disc(folder / f"images/x{n}.png", n)
        cv2.imwrite(str(folder / f"masks/x{n}.png"), label)
        rows.append([f"images/x{n}.png", f"masks/x{n}.png", "train" if n < train else "test", f"x{n}", ""])
    with (folder / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder
