# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A copy of the bundle with random weights, pictures to outline and a set to train on."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_effsam.checkpoints import save_model
from monai_effsam.data.sets import read_sets
from monai_effsam.engines.build import build_network
from monai_effsam.engines.recipe import read_recipe
from monai_effsam.engines.training_run import train
from monai_effsam.networks.nets import PromptableSam
from monai_effsam.specs import ImageSpec

SMALL = {
    "encoder": {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2},
    "decoder": {"mlp_dim": 32, "hyper_dim": 16, "channels": [16, 8, 8]},
    "sizes": {
        "endoscopy": 32,
        "ultrasound": 32,
        "dermoscopy": 32,
        "xray": 32,
        "fundus": 32,
        "ct": 32,
        "mr": 64,
    },
    "batch_area": 2 * 64 * 64,
    "held_out": 0.0,
}

VIT = {
    "name": "sam_vit",
    "size": 64,
    "width": 32,
    "depth": 2,
    "heads": 2,
    "global_blocks": [1],
    "embed_channels": 32,
}
MEDICAL = {
    "encoder": {**VIT, "medical_tokens": 2, "trainable": "medical"},
    "decoder": {"mlp_dim": 32, "hyper_dim": 16, "channels": [16, 8, 8]},
    "sizes": {
        "endoscopy": 64,
        "ultrasound": 64,
        "dermoscopy": 64,
        "xray": 64,
        "fundus": 64,
        "ct": 64,
        "mr": 64,
    },
    "batch_area": 2 * 64 * 64,
    "held_out": 0.0,
    "warm_share": 0.0,
    "epochs": 1,
    "epoch_length": 2,
}
"""Recipe of a medical teacher."""

Runner = Callable[..., ConfigWorkflow]


@pytest.fixture(scope="session")
def bundle(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with random weights of the right shapes; not to be written to."""
    folder = tmp_path_factory.mktemp("bundle") / "esp_medsam"
    shutil.copytree(
        root / "bundles" / "esp_medsam", folder, ignore=shutil.ignore_patterns("models", "run", "eval")
    )
    recipe = read_recipe(folder / "configs" / "recipe.json")
    torch.manual_seed(0)
    save_model(
        folder / "models" / "model.pt", build_network(recipe), recipe.specs(), recipe.network_options()
    )
    return folder


@pytest.fixture
def small_bundle(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle whose recipe trains a step in a moment; without a model."""
    folder = tmp_path / "small"
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("models"))
    (folder / "configs" / "recipe.json").write_text(json.dumps(SMALL))
    return folder


@pytest.fixture
def workflow(bundle: Path) -> Runner:
    """Starts a configuration of a bundle in this process, as `python -m monai.bundle run` does."""

    def start(
        *names: str, kind: str | None = "inference", where: Path = bundle, **overrides: Any
    ) -> ConfigWorkflow:
        configs = where / "configs"
        flow = ConfigWorkflow(
            config_file=[str(configs / f"{name}.json") for name in names],
            meta_file=str(configs / "metadata.json"),
            logging_file=False,
            workflow_type=kind,
            **{"bundle_root": str(where), "device": "cpu", **overrides},
        )
        flow.initialize()
        assert not flow.check_properties()
        return flow

    return start


def draw(path: Path, size: tuple[int, int], value: int = 0) -> None:
    """A grey disk on black, or its mask."""
    pixels = np.zeros(size, np.uint8)
    cv2.circle(pixels, (size[1] // 2, size[0] // 2), min(size) // 4, value or 180, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a PNG of 40 x 52."""
    draw(tmp_path / "images" / "disk.png", (40, 52))
    return tmp_path / "images"


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One set with two training pictures and one to validate."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "targets.csv").write_text("set,modality,target,label_value\nscans,mr,liver,1\n")
    rows = [["image", "mask", "split", "case", "label_class"]]
    for number, split in enumerate(("train", "train", "val")):
        name = f"{number}.png"
        draw(folder / "scans" / "images" / name, (40, 52))
        draw(folder / "scans" / "masks" / name, (40, 52), 1)
        rows.append([f"images/{name}", f"masks/{name}", split, f"p{number}", ""])
    with (folder / "scans" / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="session")
def general_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.pt` of a tiny SAM whose embedding has the width of the small bundle's."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"image_encoder": VIT, "mlp_dim": 32}
    path = tmp_path_factory.mktemp("general") / "model.pt"
    return save_model(path, PromptableSam(**options), {"": ImageSpec(64, "longest")}, options)


@pytest.fixture(scope="session")
def medical_teacher(general_teacher: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a medical teacher, trained for two steps from the general one."""
    folder = tmp_path_factory.mktemp("medical")
    (folder / "recipe.json").write_text(json.dumps(MEDICAL))
    train(read_recipe(folder / "recipe.json"), read_sets(sets, split="train"), folder, init=general_teacher)
    return folder


@pytest.fixture
def promptable_bundle(root: Path, general_teacher: Path, tmp_path: Path) -> Path:
    """A copy of the promptable bundle whose model is the tiny SAM, with a student of its size in `student.json`."""
    folder = tmp_path / "kd_sam"
    shutil.copytree(root / "bundles" / "kd_sam", folder, ignore=shutil.ignore_patterns("models"))
    shutil.copytree(general_teacher.parent, folder / "models")
    encoder = {"name": "timm_pyramid", "model": "mobilenetv3_small_050", "embed_channels": 32}
    student = {"encoder": encoder, "spec": {"size": 64, "stride": 16}}
    (folder / "student.json").write_text(json.dumps(student))
    return folder
