# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam segment`: options, statuses, output on screen, interruption."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

from monai_effsam.cli.main import main
from monai_effsam.cli.segment import parse_prompts
from monai_effsam.errors import UsageError

NO_TORCH = """
import sys
from monai_effsam.cli.main import main
wrong = (["--box", "1,2"], ["--modality", "x"], [], ["--modality", "ct", "--target", "polyp"])
statuses = [main(["segment", *sys.argv[1:], *more]) for more in wrong]
sys.exit(99 if "torch" in sys.modules or statuses != [2, 2, 2, 2] else 0)
"""


@pytest.fixture
def segment(tiny_model, tmp_path):
    """Runs the command with the tiny model; returns the exit status."""

    def run(*words, modality: str | None = "endoscopy", out: Path | None = None) -> int:
        told = ["--modality", modality] if modality else []
        return main(
            [
                "segment",
                *map(str, words),
                "-o",
                str(out or tmp_path / "out"),
                "--model",
                str(tiny_model),
                *told,
            ]
        )

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_all_well_is_status_0(segment, picture, tmp_path, capsys):
    assert segment(picture("a.png"), picture("b.png")) == 0
    out = capsys.readouterr()
    assert [line.split(":")[0] for line in out.out.splitlines()] == [
        str(tmp_path / "in" / n) for n in ("a.png", "b.png")
    ]
    assert "polyp" in out.out
    assert out.err == ""
    assert names(tmp_path / "out") == [
        "a_mask.png", "a_overlay.png", "b_mask.png", "b_overlay.png", "results.jsonl",
    ]  # fmt: skip


def test_a_folder_with_a_bad_file_is_status_1_and_the_others_are_done(segment, picture, tmp_path, capsys):
    picture("a.png")
    picture("b.png").write_bytes(b"")
    picture("c.png")
    assert segment(tmp_path / "in") == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "b.png" in errors[0]
    assert "empty" in errors[0]
    assert errors[1] == "1 of 3 inputs failed"
    assert {"a_mask.png", "c_mask.png"} < set(names(tmp_path / "out"))


@pytest.mark.parametrize(
    ("words", "modality", "text"),
    [
        (["missing.png"], "endoscopy", "missing.png: no such file"),
        (["a.png"], None, "modality is unknown, expected one of endoscopy, .*--modality"),
        (["a.png"], "endoscpy", "Did you mean 'endoscopy'"),
        (["a.png", "--target", "polip"], "endoscopy", "Did you mean 'polyp'"),
        (["a.png", "--target", "liver"], "endoscopy", "belongs to ct, mr, not to endoscopy"),
        (["a.png", "--box", "1,2,3"], "endoscopy", "--box: is '1,2,3', expected X0,Y0,X1,Y1"),
        (["a.png", "--box", "9,2,3,8"], "endoscopy", "X0 < X1"),
        (["a.png", "--box", "0,0,61,8"], "endoscopy", "X0 < X1 <= 60, 0 <= Y0 < Y1 <= 40"),
        (["a.png", "--point", "60,5"], "endoscopy", "0 <= X < 60"),
        (["a.png", "--box", "1,1,5,5"], "ultrasound", "--target with one of breast_lesion, fetal_head"),
        (["a.png", "b.png", "--box", "1,1,5,5"], "endoscopy", "2 inputs are given, expected one"),
        (["a.png", "--threads", "0"], "endoscopy", "--threads: is 0"),
        (["a.png", "--ct-window", "bon"], "endoscopy", "CT window 'bon' is unknown"),
        (["a.png", "--model", "nowhere"], "endoscopy", "--model: .*nowhere is missing"),
        ([], "endoscopy", "INPUT"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_status_2_one_line_and_no_output(
    picture, tmp_path, capsys, words, modality, text, tiny_model
):
    for name in ("a.png", "b.png"):
        picture(name)
    paths = [str(tmp_path / "in" / w) if w.endswith(".png") else w for w in words]
    told = ["--modality", modality] if modality else []
    model = [] if "--model" in words else ["--model", str(tiny_model)]
    assert main(["segment", *paths, "-o", str(tmp_path / "out"), *model, *told]) == 2
    errors = capsys.readouterr().err
    assert re.search(text, errors)
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("box", "points"),
    [
        ("1,2,3", []),
        ("1,2,3,4,5", []),
        ("a,b,c,d", []),
        ("", []),
        ("1,2,nan,4", []),
        ("1,2,inf,4", []),
        ("1;2;3;4", []),
        (None, ["1"]),
        (None, ["1,2,3,4"]),
        (None, ["1,2,x"]),
        (None, ["1,2,2"]),
        (None, ["1,2,-1"]),
        (None, ["1,2", ""]),
    ],
)
def test_prompts_are_taken_strictly(box, points):
    with pytest.raises(UsageError, match=r"^--(box|point): .*expected"):
        parse_prompts(box, points)


def test_prompts_are_parsed():
    prompts = parse_prompts("1,2,3.5,4", ["5,6", "7,8,0", "9,10,1"])
    assert prompts.box == (1, 2, 3.5, 4)
    assert prompts.points == ((5, 6), (7, 8), (9, 10))
    assert prompts.labels == (1, 0, 1)
    assert not parse_prompts(None, [])


def test_a_box_and_points_steer_one_target(segment, picture, tmp_path):
    words = ["--box", "5,5,30,30", "--point", "10,10", "--point", "50,35,0", "--target", "breast_lesion"]
    assert segment(picture(), *words, modality="ultrasound") == 0
    (record,) = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [target["name"] for target in record["targets"]] == ["breast_lesion"]


def test_json_prints_the_records(segment, picture, tmp_path, capsys):
    assert segment(picture(), "--json") == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stored = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert printed == stored


def test_quiet_says_nothing_but_errors(segment, picture, capsys):
    good, bad = picture("a.png"), picture("b.png")
    bad.write_bytes(b"")
    assert segment(good, bad, "-q") == 1
    out = capsys.readouterr()
    assert out.out == ""
    assert "b.png" in out.err


def test_a_second_run_is_refused_resumed_or_overwrites(segment, picture, tmp_path, capsys):
    path = picture()
    assert segment(path) == 0
    before = (tmp_path / "out" / "a_mask.png").stat().st_mtime_ns
    capsys.readouterr()
    assert segment(path) == 2
    assert "a_mask.png and 1 more: exists" in capsys.readouterr().err
    assert segment(path, "--resume") == 0
    assert "nothing to do: all inputs (1) are finished" in capsys.readouterr().err
    assert (tmp_path / "out" / "a_mask.png").stat().st_mtime_ns == before
    assert segment(path, "--overwrite") == 0
    assert (tmp_path / "out" / "a_mask.png").stat().st_mtime_ns > before
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1


def test_the_target_table_gives_the_values_of_the_mask(segment, picture, tmp_path):
    assert segment(picture(), modality="dermoscopy") == 0
    mask = cv2.imread(str(tmp_path / "out" / "a_mask.png"), cv2.IMREAD_UNCHANGED)
    (record,) = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    (lesion,) = record["targets"]
    assert lesion["value"] == 2
    assert set(mask.ravel().tolist()) <= {0, 2}
    assert lesion["area_px"] == int((mask == 2).sum())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there_is_an_error_not_a_cpu_run(segment, picture, tmp_path, capsys):
    assert segment(picture(), "--device", "cuda") == 2
    error = capsys.readouterr().err
    assert f"torch {torch.__version__} sees: cpu" in error
    assert not (tmp_path / "out").exists()


def test_a_damaged_model_is_refused_by_name(picture, tmp_path, tiny_model, capsys):
    broken = tmp_path / "model.pt"
    broken.write_bytes(tiny_model.read_bytes()[:-100])
    (tmp_path / "model.json").write_bytes(tiny_model.with_suffix(".json").read_bytes())
    status = main(
        ["segment", str(picture()), "-o", str(tmp_path / "out"), "--model", str(broken), "--modality", "ct"]
    )
    assert status != 0
    assert "model.pt: sha256 is" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_usage_errors_answer_without_torch(picture, tmp_path, tiny_model):
    words = [str(picture()), "-o", str(tmp_path / "out"), "--model", str(tiny_model)]
    result = subprocess.run(
        [sys.executable, "-c", NO_TORCH, *words], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is POSIX's")
def test_ctrl_c_stops_with_130_and_nothing_half_written(picture, tmp_path, tiny_model):
    first = picture("first.png", size=(200, 300))
    for i in range(200):
        shutil.copy(first, first.with_name(f"{i:03}.png"))
    out = tmp_path / "out"
    words = [
        "segment",
        str(tmp_path / "in"),
        "-o",
        str(out),
        "--modality",
        "endoscopy",
        "--model",
        str(tiny_model),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "monai_effsam.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background jobs ignore it
    )
    for _ in range(3):
        assert process.stdout.readline().startswith(str(tmp_path / "in"))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.startswith("stopped; ")
    assert len(errors.splitlines()) == 1
    stems = [
        Path(json.loads(line)["input"]).stem for line in (out / "results.jsonl").read_text().splitlines()
    ]
    assert 3 <= len(stems) < 201
    assert names(out) == sorted(
        [*(f"{s}_{end}.png" for s in stems for end in ("mask", "overlay")), "results.jsonl"]
    )
    for stem in stems:
        assert cv2.imread(str(out / f"{stem}_mask.png"), cv2.IMREAD_UNCHANGED).shape == (200, 300)


def test_a_dicom_seg_that_no_input_can_have_is_status_2(segment, picture, tmp_path, capsys):
    pytest.importorskip("highdicom")
    assert segment(picture(), "--dicom-seg") == 2
    assert "--dicom-seg: no input is DICOM, expected at least one" in capsys.readouterr().err
    assert names(tmp_path / "out") == []
