# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The commands of the bundle's README, as processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from monai_effsam.checkpoints import load_model
from monai_effsam.engines.build import build_network
from monai_effsam.engines.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]


def call(module: list[str], where: Path, *words: str) -> str:
    """Standard error of a command that ends well."""
    command = [sys.executable, *module, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=where, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def start(where: Path, config: str, *words: str, module: tuple[str, ...] = ("-m", "monai.bundle")) -> str:
    given = ["run", "--config_file", config, "--meta_file", "configs/metadata.json", "--bundle_root", "."]
    return call([*module], where, *given, *words)


def test_inference_from_the_bundle_s_folder(bundle, pictures, tmp_path):
    words = ["--dataset_dir", str(pictures), "--output_dir", str(tmp_path / "out"), "--modality", "mr"]
    said = start(bundle, "configs/inference.json", "--logging_file", "configs/logging.conf", *words)
    assert "disk_mask.png" in said
    assert cv2.imread(str(tmp_path / "out" / "disk_mask.png"), cv2.IMREAD_UNCHANGED).shape == (40, 52)


@pytest.mark.slow
def test_evaluation_and_training_go_together(small_bundle, sets, tmp_path):
    data = ["--dataset_dir", str(sets), "--output_dir", str(tmp_path)]
    start(small_bundle, "configs/train.json", *data, "--epochs", "1", "--epoch_length", "2")
    assert [json.loads(line)["step"] for line in (tmp_path / "losses.jsonl").read_text().splitlines()] == [
        1,
        2,
    ]
    recipe = read_recipe(small_bundle / "configs" / "recipe.json").network_options()
    words = [
        "--network_def#encoder",
        json.dumps(recipe["encoder"]),
        "--network_def#decoder",
        json.dumps(recipe["decoder"]),
    ]
    start(small_bundle, "configs/evaluate.json", *data, *words)
    assert list(json.loads((tmp_path / "dice.json").read_text())) == ["mr/liver"]


@pytest.mark.slow
def test_controllers_are_distilled(small_bundle, sets, medical_teacher, tmp_path):
    words = {
        "dataset_dir": sets,
        "student": "configs/recipe.json",
        "teacher_path": medical_teacher,
        "output_dir": tmp_path / "run",
        "init": "none",
        "epochs": 1,
        "epoch_length": 2,
    }
    flat = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    start(small_bundle, "configs/distill_controllers.json", *flat)
    assert len((tmp_path / "run" / "losses.jsonl").read_text().splitlines()) == 2
    assert load_model(tmp_path / "run").card["recipe"]["part"] == "controllers"


@pytest.mark.slow
def test_a_student_is_distilled_and_prompted(promptable_bundle, sets, pictures, tmp_path):
    words = {
        "dataset_dir": sets,
        "teacher_path": ".",
        "student_name": "student.json",
        "output_dir": tmp_path / "run",
        "epochs": 1,
        "batch": 2,
        "views": 1,
        "perceptual": "$None",
        "cache_dir": tmp_path / "cache",
    }
    flat = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    start(promptable_bundle, "configs/distill.json", *flat)
    assert load_model(tmp_path / "run").card["recipe"]["perceptual"] == "none"
    asked = ["--dataset_dir", str(pictures), "--output_dir", str(tmp_path / "out"), "--box", "[10,5,40,30]"]
    assert "disk_mask.png" in start(
        promptable_bundle, "configs/inference.json", "--logging_file", "configs/logging.conf", *asked
    )


@pytest.mark.slow
def test_two_processes_train_one_model(small_bundle, sets, tmp_path):
    both = "['configs/train.json','configs/multi_gpu_train.json']"
    words = [
        "--dataset_dir",
        str(sets),
        "--output_dir",
        str(tmp_path),
        "--epochs",
        "1",
        "--epoch_length",
        "2",
    ]
    torchrun = (
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nnodes=1",
        "--nproc_per_node=2",
        "-m",
        "monai.bundle",
    )
    start(small_bundle, both, *words, "--backend", "gloo", "--device", "cpu", module=torchrun)
    assert [json.loads(line)["step"] for line in (tmp_path / "losses.jsonl").read_text().splitlines()] == [
        1,
        2,
    ]
    own = build_network(read_recipe(small_bundle / "configs" / "recipe.json")).state_dict()
    assert load_model(small_bundle).network.state_dict().keys() == own.keys()


@pytest.mark.slow
def test_the_checks_of_the_readme_pass(root, bundle):
    schema = str(root / "tests" / "bundles" / "meta_schema_20240725.json")
    words = ["--meta_file", "configs/metadata.json"]
    call(["-m", "monai.bundle"], bundle, "verify_metadata", *words, "--filepath", schema)
    words += ["--net_id", "network_def", "--config_file", "configs/inference.json", "--bundle_root", "."]
    call(["-m", "monai.bundle"], bundle, "verify_net_in_out", *words, "--n", "4", "--device", "cpu")
