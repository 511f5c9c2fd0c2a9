# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam export` and `effsam profile`; exported models need no torch, and nothing phones home."""

import json
import os
import subprocess
import sys

import cv2
import pytest

from monai_effsam.cli.main import COMMANDS, main

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

WITHOUT_TORCH = """
import sys
from monai_effsam.cli.main import main
status = main(sys.argv[1:])
heavy = {"torch", "monai", "timm"} & sys.modules.keys()
sys.exit(f"imported {heavy}" if heavy else status)
"""


def test_export_tells_how_far_each_runtime_is_from_torch(tiny_model, tmp_path, capsys):
    out = tmp_path / "exported"
    assert main(["export", str(tiny_model), "-o", str(out), "--runtime", "onnxruntime", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["folder"] == str(out)
    assert 0 < report["differences"]["onnxruntime"]["mask_logits"] < 1e-3
    assert main(["export", str(tiny_model), "-o", str(out)]) == 2
    assert "exists, expected a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.pt"], "nowhere.pt: is missing"),
        (["--runtime", "onnx-runtime"], "Did you mean 'onnxruntime'"),
    ],
)
def test_export_refuses_what_it_cannot_do(words, message, tmp_path, capsys):
    assert main(["export", *words, "-o", str(tmp_path / "x")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_exported_model_segments_as_the_model_does(tiny_model, tiny_exported, picture, tmp_path, runtime):
    words = ["segment", str(picture("a.png", (70, 90))), "--modality", "ultrasound"]
    assert main([*words, "--model", str(tiny_model), "-o", str(tmp_path / "t")]) == 0
    assert main([*words, "--model", str(tiny_exported), "--runtime", runtime, "-o", str(tmp_path / "e")]) == 0
    masks = [cv2.imread(str(tmp_path / name / "a_mask.png"), cv2.IMREAD_UNCHANGED) for name in "te"]
    assert masks[0].any()
    assert (masks[0] != masks[1]).mean() < 1e-3


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_segmenting_with_an_exported_model_imports_no_torch(tiny_exported, picture, tmp_path, runtime):
    words = ["segment", str(picture()), "--modality", "ultrasound", "--model", str(tiny_exported)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words, "--runtime", runtime, "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_profile_names_every_stage(tiny_exported, picture, capsys):
    words = ["profile", str(picture()), "--modality", "ct", "--model", str(tiny_exported), "--rounds", "2"]
    assert main([*words, "--threads", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    stages = report["stages_ms"]
    assert list(stages) == ["read", "prepare", "encode", "decode", "place", "mask", "overlay", "total"]
    assert all(ms > 0 for ms in stages.values())
    assert (report["runtime"], report["threads"], report["rounds"]) == ("onnxruntime", 1, 2)
    assert main(words) == 0
    text = capsys.readouterr().out
    assert all(f"\n{stage} " in text for stage in stages)
    assert main([*words, "--rounds", "0"]) == 2


@pytest.fixture
def home(tmp_path):
    """A fresh home folder, and an environment that knows no other."""
    folder = tmp_path / "home"
    folder.mkdir()
    hidden = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    return folder, {**{k: v for k, v in os.environ.items() if k not in hidden}, "HOME": str(folder)}


def test_nothing_phones_home(tiny_model, tiny_exported, picture, tmp_path, home):
    """Runtimes would leave device ids and event stores below the home folder; none may be there afterwards."""
    folder, environment = home
    image, root = str(picture()), tmp_path
    segment = ["segment", image, "--modality", "ultrasound", "--model"]
    runs = {
        "doctor": ["doctor"],
        "export": ["export", str(tiny_model), "-o", str(root / "x")],
        "segment": [*segment, str(tiny_exported), "--runtime", "onnxruntime", "-o", str(root / "a")],
        "profile": ["profile", image, "--modality", "ct", "--model", str(tiny_exported), "--rounds", "1"],
        "openvino": [*segment, str(tiny_exported), "--runtime", "openvino", "-o", str(root / "b")],
        "torch": [*segment, str(tiny_model), "-o", str(root / "c")],
    }
    for name, words in runs.items():
        done = subprocess.run(
            [sys.executable, "-m", "monai_effsam.cli", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (name, done.stderr)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == []
    assert set(runs) & COMMANDS.keys() == {"doctor", "export", "segment", "profile"}
