# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam distill`: a toy folder with a random teacher, labels, interruptions, and one line for every mistake."""

import json
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch

from monai_effsam.checkpoints import load_model, save_model
from monai_effsam.cli.main import main
from monai_effsam.engines.students import build_student, find_student
from monai_effsam.engines.teacher import load_teacher
from monai_effsam.networks.nets import PromptableSam
from monai_effsam.specs import ImageSpec

pytest.importorskip("lmdb")

STUDENT = {
    "encoder": {"name": "timm_pyramid", "model": "mobilenetv3_small_050"},
    "spec": {"size": 64, "mean": [0.5] * 3, "std": [0.5] * 3},
}
KILLED = """
import os, signal, sys
from monai_effsam.cli.main import main
from monai_effsam.engines import {module} as engine
run = engine.{name}.forward
def forward(self, batch, index):
    if index == {index}: os.kill(os.getpid(), signal.SIGKILL)
    return run(self, batch, index)
engine.{name}.forward = forward
main(sys.argv[1:])
"""


def picture(path, number=0, mask=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(number)
    label = np.zeros((40, 60), np.uint8)
    cv2.circle(label, tuple(int(v) for v in random.integers(15, 25, 2)), 10, 1, -1)
    noise = random.integers(0, 80, (40, 60, 3), np.uint8)
    cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 1) + 120 * label[..., None])
    if mask is not None:
        mask.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(mask), label)


@pytest.fixture
def folder(tmp_path):
    """Eight pictures without labels, two of which are watched: with two views of the others the teacher sees 14."""
    for number in range(8):
        picture(tmp_path / "in" / f"p{number}.png", number)
    return tmp_path / "in"


@pytest.fixture
def pairs(tmp_path):
    """Ten pictures with a disk each."""
    root = tmp_path / "pairs"
    for number in range(10):
        picture(root / "images" / f"p{number}.png", number, root / "masks" / f"p{number}.png")
    return root


@pytest.fixture
def student(tmp_path):
    path = tmp_path / "student.json"
    path.write_text(json.dumps(STUDENT))
    return path


def words(images, out, student, *more):
    given = ["distill", "--teacher", "random", "--student", str(student), "--images", str(images)]
    return [*given, "-o", str(out), "--device", "cpu", "--batch", "3", "--views", "2", "-q", *map(str, more)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


LABELS = ("--modality", "endoscopy", "--target", "polyp")


def test_a_toy_folder_with_a_random_teacher(folder, student, tmp_path, capsys):
    began = time.process_time()
    out = tmp_path / "run"
    assert main(words(folder, out, student, "--epochs", 5, "--cache", tmp_path / "cache")) == 0
    assert time.process_time() - began < 30
    said = capsys.readouterr().out
    assert "14 views computed, 0 were there; 14 entries" in said
    assert " hits, 0 misses" in said
    model = load_model(out)
    assert model.promptable
    assert model.specs[""] == ImageSpec.from_json(STUDENT["spec"])
    before, after = (model.card["stages"]["encoder"][k]["mse"] for k in ("before", "after"))
    assert after < 0.8 * before
    teacher = load_teacher("random").network
    ours, theirs = (n.mask_decoder.state_dict() for n in (model.network, teacher))
    assert all(torch.allclose(ours[k], theirs[k].half().float()) for k in ours)
    steps = lines(out / "encoder" / "losses.jsonl")
    assert {"loss", "mse", "perceptual"} <= steps[0].keys()
    assert len(steps) == 10
    assert (out / "encoder" / "tensorboard").is_dir()


@pytest.mark.slow
def test_with_and_without_a_cache_the_student_is_the_same_within_its_precision(folder, student, tmp_path):
    curves = []
    for name, more in (("with", ("--cache", tmp_path / "cache")), ("without", ())):
        assert main(words(folder, tmp_path / name, student, "--epochs", 2, *more)) == 0
        curves.append([row["loss"] for row in lines(tmp_path / name / "encoder" / "losses.jsonl")])
    assert curves[0] == pytest.approx(curves[1], rel=0.01)
    assert curves[0] != curves[1]  # 16-bit floats


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "index", "stage"),
    [("distillation", "DistillationStep", 2, "encoder"), ("decoder_tuning", "TuningStep", 2, "decoder")],
)
def test_a_run_killed_in_any_stage_continues_with_the_same_curve(
    pairs, student, tmp_path, module, name, index, stage
):
    more = [*LABELS, "--epochs", "3", "--cache", str(tmp_path / "cache")]
    assert main(words(pairs, tmp_path / "whole", student, *more)) == 0
    code = KILLED.format(module=module, name=name, index=index)
    cut = words(pairs, tmp_path / "cut", student, *more)
    killed = subprocess.run([sys.executable, "-c", code, *cut], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    assert not (tmp_path / "cut" / "model.pt").exists()
    assert main([*cut, "--resume"]) == 0
    for part in ("encoder", "decoder"):
        for file in ("losses.jsonl", "held_out.jsonl"):
            again, once = (lines(tmp_path / run / part / file) for run in ("cut", "whole"))
            assert len(again) == len(once)
            for a, b in zip(again, once, strict=True):
                assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


def test_with_labels_the_decoder_is_tuned_and_the_encoder_left_alone(pairs, student, tmp_path):
    out = tmp_path / "run"
    more = [*LABELS, "--epochs", 1, "--cache", tmp_path / "cache"]
    assert main(words(pairs, out, student, *more)) == 0
    model = load_model(out)
    assert list(model.card["stages"]) == ["encoder", "decoder"]
    assert model.card["stages"]["decoder"]["before"].keys() == {"dice", "box", "point"}
    encoder = torch.load(out / "encoder" / "weights.pt", weights_only=True)
    shipped = model.network.image_encoder.state_dict()
    assert all(
        torch.equal(shipped[k], v.half().float() if v.is_floating_point() else v) for k, v in encoder.items()
    )
    assert not (out / "decoder" / "cache").exists()
    assert [t.name for t in model.targets] == ["polyp"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "stages"),
    [
        (("--stages", "joint"), ["joint"]),
        (("--decoder-first", "--perceptual", "none"), ["encoder", "decoder"]),
        (("--stages", "joint,encoder"), ["encoder", "joint"]),
    ],
)
def test_ablations_are_options(pairs, student, tmp_path, more, stages):
    out = tmp_path / "run"
    assert main(words(pairs, out, student, *LABELS, "--epochs", 1, *more)) == 0
    assert list(load_model(out).card["stages"]) == stages
    if "none" in more:
        assert "perceptual" not in lines(out / "encoder" / "losses.jsonl")[0]


def test_unreadable_pictures_are_told_counted_and_passed_over(folder, student, tmp_path, capsys):
    (folder / "zz.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    assert main(words(folder, tmp_path / "run", student, "--epochs", 1)) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "zz.png" in line]
    assert "1 files could not be read and were passed over" in said
    assert (tmp_path / "run" / "model.pt").is_file()


def test_filling_stops_when_it_is_done_and_a_run_takes_it_up(folder, student, tmp_path, capsys):
    cache = ("--cache", tmp_path / "cache")
    assert main(words(folder, tmp_path / "run", student, *cache, "--fill")) == 0
    assert not (tmp_path / "run").exists()
    assert main(words(folder, tmp_path / "run", student, *cache, "--epochs", 1)) == 0
    assert "0 views computed, 14 were there" in capsys.readouterr().out


def test_a_limit_that_is_reached_is_one_line_and_a_rerun_goes_on(folder, student, tmp_path, capsys):
    small = words(folder, tmp_path / "run", student, "--cache", tmp_path / "cache", "--epochs", 1)
    assert main([*small, "--cache-limit", "0.0003"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "teacher cache is full at 0.0003 GB" in line
    assert main(small) == 0
    computed = int(capsys.readouterr().out.split(": ")[1].split(" views")[0])
    assert 0 < computed < 14


def wrong_cache(tmp_path, words):
    assert main([*words, "--epochs", "1"]) == 0
    return [*words, "--overwrite", "--seed", "1"]


def other_channels(tmp_path, words):
    network = PromptableSam({**STUDENT["encoder"], "embed_channels": 32})
    options = {"image_encoder": {**STUDENT["encoder"], "embed_channels": 32}}
    save_model(tmp_path / "teacher.pt", network, {"": ImageSpec(64)}, options)
    words[words.index("random")] = str(tmp_path / "teacher.pt")
    return words[: words.index("--cache")]


def empty_folder(tmp_path, words):
    (tmp_path / "empty").mkdir()
    words[words.index("--images") + 1] = str(tmp_path / "empty")
    return words


def run_exists(tmp_path, words):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{}")
    return words


def model_exists(tmp_path, words):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.pt").write_bytes(b"")
    return words


def no_teacher(tmp_path, words):
    words[words.index("random")] = str(tmp_path / "absent.pth")
    return words


MISTAKES = {
    "another teacher's cache": (wrong_cache, 2, "another teacher made (other teacher)"),
    "another width": (other_channels, 1, "its embedding has 32 channels, expected the student's 256"),
    "empty folder": (empty_folder, 2, "folder holds no images"),
    "no teacher": (no_teacher, 2, "absent.pth is missing, expected a model.pt, a training run, a bundle"),
    "run exists": (run_exists, 2, "holds a run already. Give --resume"),
    "model exists": (model_exists, 2, "model.pt: exists. Give another --out"),
    "another recipe": (lambda t, w: [*run_exists(t, w), "--resume"], 2, "is another recipe (other "),
    "no labels": (lambda t, w: [*w, "--stages", "decoder"], 2, "has no labels, expected encoder alone"),
    "unknown stage": (lambda t, w: [*w, "--stages", "encodr"], 2, "Did you mean 'encoder'"),
    "no such pictures": (lambda t, w: [*w, "--images", "absent"], 2, "absent: no such file or folder"),
    "fill nothing": (lambda t, w: [*w[: w.index("--cache")], "--fill"], 2, "--fill is given without --cache"),
    "no views": (lambda t, w: [*w, "--views", "0"], 2, "--views is 0, expected more than 0"),
    "no epochs": (lambda t, w: [*w, "--epochs", "3,0"], 2, "--epochs is 3,0, expected a positive number"),
    "epochs of other stages": (lambda t, w: [*w, "--epochs", "3,2"], 2, "or one for each of encoder"),
    "no vgg": (lambda t, w: [*w, "--perceptual", "masked"], 2, "needs the weights of a VGG"),
    "no trunk": (lambda t, w: [*w, "--trunk", "absent"], 2, "--trunk absent: no such file"),
    "unknown saliency": (lambda t, w: [*w, "--saliency", "gradcam"], 2, "Did you mean 'grad_cam'"),
    "negative weight": (lambda t, w: [*w, "--logits", "-1"], 2, "--logits is -1.0, expected 0 or more"),
    "no term": (
        lambda t, w: [*w, "--perceptual", "none", "--embedding-weight", "0"],
        2,
        "stage encoder: every term has weight 0",
    ),
    "one term alone": (
        lambda t, w: [*w, "--perceptual", "none", "--ablation"],
        2,
        "expected a stage encoder with two",
    ),
    "odd size": (lambda t, w: [*w, "--size", "50"], 2, "size is 50"),
}


@pytest.mark.parametrize(("mistake", "status", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line_and_lose_nothing(folder, student, tmp_path, capsys, mistake, status, message):
    given = mistake(tmp_path, words(folder, tmp_path / "run", student, "--cache", tmp_path / "cache"))
    before = {p: p.read_bytes() for p in (tmp_path / "cache").glob("*.mdb") if p.name == "data.mdb"}
    capsys.readouterr()
    assert main(given) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert all(p.read_bytes() == content for p, content in before.items())


def test_the_student_can_be_built_again_from_its_card(folder, student, tmp_path):
    assert main(words(folder, tmp_path / "run", student, "--epochs", 1)) == 0
    model = load_model(tmp_path / "run")
    _, options = build_student(find_student(str(student)), load_teacher("random").network)
    assert model.card["network"] == options
    with torch.no_grad():
        found = model.network(torch.zeros(1, 3, 64, 64), boxes=torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]))
    assert found.mask_logits.shape == (1, 1, 1, 16, 16)


@pytest.mark.slow
def test_an_ablation_is_one_command_and_one_table(pairs, student, tmp_path, capsys):
    out = tmp_path / "run"
    terms = ("--perceptual", "none", "--logits", 1, "--saliency", "activation", "--ablation")
    given = words(pairs, out, student, *LABELS, "--epochs", 1, *terms, "--cache", tmp_path / "cache")
    assert main(given) == 0
    said = capsys.readouterr().out
    found = json.loads((out / "ablation.json").read_text())
    assert list(found) == ["all_terms", "without_embedding", "without_logits", "without_saliency"]
    assert all({"encoder mse", "decoder dice"} <= numbers.keys() for numbers in found.values())
    assert not any(
        "encoder loss" in numbers for numbers in found.values()
    )  # the sum of other terms each time
    first = [lines(out / name / "encoder" / "losses.jsonl")[0] for name in found]
    assert len({row["loss"] for row in first}) == 4
    assert {"logits", "saliency"} <= first[0].keys()
    assert f"| without logits | {found['without_logits']['encoder mse']:.4f} |" in said
    recipes = [json.loads((out / name / "recipe.json").read_text()) for name in found]
    assert [(r["embedding"], r["logits"], r["saliency"]) for r in recipes] == [
        (1.0, 1.0, "activation"),
        (0.0, 1.0, "activation"),
        (1.0, 0.0, "activation"),
        (1.0, 1.0, "none"),
    ]
    assert main(given) == 2
    assert "ablation.json: exists" in capsys.readouterr().err
