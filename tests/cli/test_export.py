# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam export` and `effsam profile`; exported models need no torch."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from monai_effsam.cli.main import main

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
        (["nowhere.pt"], "MODEL: nowhere.pt is missing"),
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


@pytest.mark.slow
def test_one_table_compares_the_runtimes(tiny_model, picture, tmp_path, capsys):
    words = ["profile", str(picture()), "--modality", "ultrasound", "--model", str(tiny_model)]
    assert main([*words, "--write-docs", str(tmp_path / "speed.md")]) == 2
    assert main([*words, "--every-runtime", "--runtime", "torch"]) == 2
    assert "Add --every-runtime" in capsys.readouterr().err
    page = tmp_path / "speed.md"
    assert (
        main([*words, "--every-runtime", "--rounds", "1", "--threads", "1", "--write-docs", str(page)]) == 0
    )
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert rows[0][1:] == ["PyTorch", "ONNX Runtime", "OpenVINO"]
    table = {row[0]: [float(cell) for cell in row[1:]] for row in rows[2:]}
    assert all(len(cells) == 3 and min(cells) > 0 for cells in table.values())
    ours, theirs = (
        [np.array(table[f"{whose} {half} [ms]"]) for half in ("encoder", "decoder")]
        for whose in ("our", "LiteMedSAM's")
    )
    ratios = {  # of one turn medians are that turn
        "encoder: so many times faster": theirs[0] / ours[0],
        "encode and decode: so many times faster": sum(theirs) / sum(ours),
        "encode and decode against its encoder alone": theirs[0] / sum(ours),
    }
    for name, expected in ratios.items():
        np.testing.assert_allclose(table[name], expected, rtol=0.1)
    assert table["its peak memory [MB]"][0] > table["its peak memory [MB]"][1]  # torch alone is larger
