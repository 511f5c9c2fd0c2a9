# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Whole training runs, small: interrupted and resumed, in one process and in two."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ignite.engine import Engine

from monai_effsam.checkpoints import load_model
from monai_effsam.cli.main import main
from monai_effsam.engines.build import build_network
from monai_effsam.engines.recipe import Recipe
from monai_effsam.engines.run_keeper import RunKeeper


def losses(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


@pytest.fixture
def recipe(tiny_recipe: dict[str, object], tmp_path: Path) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(tiny_recipe))
    return path


def train(data: Path, out: Path, recipe: Path, *more: str) -> int:
    words = ["train", str(data), "-o", str(out), "--recipe", str(recipe), "--init", "none", "--device", "cpu"]
    return main([*words, "--processes", "1", *more])


def test_a_run_killed_in_the_middle_continues_with_the_same_curve(data_root, recipe, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(data_root, whole, recipe) == 0
    killer = (
        "import os, signal, sys\n"
        "from monai_effsam.cli.main import main\n"
        "from monai_effsam.engines import self_prompting as engine\n"
        "step = engine.SelfPromptingStep.forward\n"
        "def forward(self, batch, index):\n"
        "    if index == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, batch, index)\n"
        "engine.SelfPromptingStep.forward = forward\n"
        "main(sys.argv[1:])\n"
    )
    words = ["train", str(data_root), "-o", str(cut), "--recipe", str(recipe), "--init", "none"]
    words += ["--device", "cpu", "--processes", "1"]
    killed = subprocess.run(
        [sys.executable, "-c", killer, *words], capture_output=True, timeout=120, check=False
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert len(losses(cut)) == 4
    assert not (cut / "model.pt").exists()
    assert train(data_root, cut, recipe, "--resume") == 0
    for again, once in zip(losses(cut), losses(whole), strict=True):
        assert again == pytest.approx(
            once, rel=1e-4, abs=1e-5
        )  # sums differ in the last bits between processes
    first, second = (load_model(run).network.state_dict() for run in (whole, cut))
    apart = [(first[key].float() - second[key].float()).abs().mean() for key in first]
    assert max(apart) < 1e-4


def test_the_model_of_a_run_knows_its_targets_and_sizes(data_root, recipe, tmp_path):
    assert train(data_root, tmp_path / "run", recipe, "--epochs", "1", "--epoch-length", "1") == 0
    model = load_model(tmp_path / "run")
    assert [(t.modality, t.name) for t in model.targets] == [
        ("endoscopy", "polyp"),
        ("ultrasound", "breast_lesion"),
    ]
    assert model.specs["endoscopy"].size == 64
    assert model.specs["ultrasound"].size == 32
    assert model.card["data"]["polyps"] == {"trained": 6, "calibrated": 0}


def test_a_run_in_the_way_is_refused_and_another_recipe_does_not_resume(data_root, recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(data_root, out, recipe, "--epochs", "1", "--epoch-length", "1") == 0
    assert train(data_root, out, recipe) == 2
    assert "holds a run already. Give --resume" in capsys.readouterr().err
    assert train(data_root, out, recipe, "--resume", "--epochs", "2") == 2
    assert "was made with another recipe" in capsys.readouterr().err


def test_two_processes_share_the_work_and_leave_one_model(data_root, recipe, tmp_path):
    words = ["train", str(data_root), "-o", str(tmp_path / "run"), "--recipe", str(recipe), "--init", "none"]
    words += ["--device", "cpu", "--processes", "2", "--epochs", "1", "--epoch-length", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "monai_effsam.cli", *words], capture_output=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert [row["step"] for row in losses(tmp_path / "run")] == [1, 2]
    assert (tmp_path / "run" / "model.pt").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing"], "no such file or folder"),
        (["."], "--modality and --target are needed"),
        ([".", "--modality", "endoscopie", "--target", "polyp"], "Did you mean 'endoscopy'?"),
        ([".", "--modality", "endoscopy", "--target", "polyp=300"], "expected 1..255"),
        ([".", "--target", "a=1", "--target", "b=1"], "mask value 1 is already 'a'"),
        ([".", "--epochs", "0"], "--epochs is 0, expected at least 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_wrong_requests_get_one_line(words, message, tmp_path, capsys):
    data, *more = words
    assert main(["train", str(tmp_path / data), "-o", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("iteration", "momentum"), [(1, 1 / 11), (90, 0.01), (100_000, 0.003)])
def test_a_young_average_forgets_faster(iteration, momentum, tiny_recipe, tmp_path):
    keeper = RunKeeper(tmp_path, Recipe(**tiny_recipe), build_network(Recipe(**tiny_recipe)))
    engine = Engine(lambda engine, batch: None)
    engine.state.iteration = iteration
    keeper._warm_average(engine)
    assert engine.state.ema_momentum == pytest.approx(momentum)
