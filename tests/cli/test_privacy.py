# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Nothing phones home: after every command, a fresh home folder is as empty as before.

ONNX Runtime, OpenVINO and NNCF leave device ids and event stores there by default, and MONAI, torch or a hub client
might.
"""

import json
import os
import signal
import subprocess
import sys
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from monai_effsam.cli.main import COMMANDS

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

QUICK = ("targets", "doctor", "export", "segment", "profile", "models")
SLOW = ("train", "search", "distill", "evaluate", "compare", "demo")
SERVING = ("label",)
RECIPE = {
    "encoder": {"name": "timm", "model": "mobilenetv2_035", "embed_channels": 32},
    "decoder": {"channels": [8, 8, 8]},
    "sizes": {"endoscopy": 64},
    "batch_area": 8192,
}


@pytest.fixture
def pairs(tmp_path):
    """Eight pictures with masks."""
    for index in range(8):
        for kind in ("images", "masks"):
            (tmp_path / "pairs" / kind).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (60, 80, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "pairs" / "images" / f"p{index}.png"), pixels)
        mask = np.zeros((60, 80), np.uint8)
        mask[20:40, 10 + index : 50] = 1
        cv2.imwrite(str(tmp_path / "pairs" / "masks" / f"p{index}.png"), mask)
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    return tmp_path / "pairs"


@pytest.fixture
def home(tmp_path):
    """A fresh home folder, and the environment of a process in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    hidden = (
        "CI",
        "ORT_DISABLE_TELEMETRY",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
    )
    return folder, {k: v for k, v in os.environ.items() if k not in hidden} | {"HOME": str(folder)}


@pytest.fixture
def leaves(home):
    """A function: runs a command with a fresh home folder, and returns what it left there."""

    def run(*words: object) -> list[str]:
        folder, environment = home
        done = subprocess.run(
            [sys.executable, "-m", "monai_effsam.cli", *map(str, words)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))

    return run


def test_every_command_is_looked_at():
    assert {*QUICK, *SLOW, *SERVING} == COMMANDS.keys()


def test_small_commands_leave_nothing_behind(leaves, tiny_model, tiny_exported, pairs, tmp_path):
    image = pairs / "images" / "p0.png"
    told = ("--modality", "endoscopy", "--model", tiny_exported)
    assert leaves("targets") == []
    assert leaves("doctor") == []
    assert leaves("models", "check", tiny_model) == []
    assert leaves("export", tiny_model, "-o", tmp_path / "x") == []
    for runtime in ("onnxruntime", "openvino"):
        assert leaves("segment", image, *told, "--runtime", runtime, "-o", tmp_path / runtime) == []
        assert leaves("profile", image, *told, "--runtime", runtime, "--rounds", "1") == []


@pytest.mark.slow
def test_large_commands_leave_nothing_behind(leaves, tiny_exported, pairs, tmp_path):
    told = ("--modality", "endoscopy", "--target", "polyp")
    recipe = ("--recipe", tmp_path / "recipe.json", "--init", "none", "--processes", "1")
    assert (
        leaves("train", pairs, *told, *recipe, "--epochs", 1, "--epoch-length", 1, "-o", tmp_path / "run")
        == []
    )
    assert leaves("evaluate", pairs, *told, "--model", tiny_exported, "-o", tmp_path / "e") == []
    both = ("--model", f"tiny={tiny_exported}", "--jitter", "0")
    assert leaves("compare", pairs, *told, *both, "-o", tmp_path / "c") == []
    toy = ("--teacher", "random", "--epochs", 1, "--views", 1)
    assert leaves("distill", "--images", pairs / "images", *toy, "-o", tmp_path / "student") == []
    short = ("--budget", "500MMAC", "--space", "tiny", "--top", 1, "--judge-steps", 1)
    assert leaves("search", *short, *toy, "--images", pairs / "images", "-o", tmp_path / "search") == []
    assert leaves("demo", "-o", tmp_path / "demo", "--model", tiny_exported) == []


@pytest.mark.slow
def test_quantising_leaves_nothing_behind(leaves, tiny_promptable, pairs, tmp_path):
    pytest.importorskip("nncf", reason="nncf is missing: install the extra nas")
    words = ("--int8", "--calibrate", pairs / "images", "--max-drop", 0.9)
    assert leaves("export", tiny_promptable, "-o", tmp_path / "int8", *words) == []


@pytest.mark.slow
def test_the_labelling_server_leaves_nothing_behind(home, pairs, tmp_path):
    pytest.importorskip("monailabel")
    folder, environment = home
    words = ("label", "--studies", pairs / "images", "--modality", "endoscopy", "--port", "0")
    told = []
    with subprocess.Popen(
        [sys.executable, "-m", "monai_effsam.cli", *map(str, words), "--state", str(tmp_path / "state")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        for line in server.stdout:
            told.append(line)
            if "http://" in line:
                with urlopen(line.split()[-1] + "/info/", timeout=60) as reply:
                    assert json.load(reply)["name"] == "effsam"
                server.send_signal(signal.SIGINT)
    assert server.wait(60) == 0, "".join(told)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == []
