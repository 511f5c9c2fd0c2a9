# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam train --recipe promptable`: from labelled pictures to a model that a box steers, and on from there."""

import json

import pytest

from monai_effsam.checkpoints import load_model
from monai_effsam.cli.main import main
from tests.engines.conftest import write_set

RECIPE = {
    "kind": "promptable",
    "encoder": {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2},
    "mlp_dim": 32,
    "image_spec": {"size": 64},
    "batch_area": 2 * 64 * 64,
    "epochs": 1,
    "epoch_length": 2,
}


@pytest.fixture
def data(tmp_path):
    write_set(tmp_path / "data", "polyps", 6)
    text = "set,modality,target,label_value\npolyps,endoscopy,polyp,1\n"
    (tmp_path / "data" / "targets.csv").write_text(text)
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    return tmp_path / "data"


def test_a_trained_model_is_promptable_and_can_be_tuned_on(data, tmp_path, capsys):
    words = ["train", str(data), "--device", "cpu", "--processes", "1", "-q"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*words, "-o", str(first), "--recipe", str(tmp_path / "recipe.json"), "--init", "none"]) == 0
    model = load_model(first)
    assert model.promptable
    assert model.specs[""].size == 64
    assert [t.name for t in model.targets] == ["polyp"]
    more = ["--recipe", "promptable", "--init", str(first), "--epochs", "1", "--epoch-length", "1"]
    assert main([*words, "-o", str(second), *more]) == 0
    tuned = load_model(second)
    assert tuned.card["network"] == model.card["network"]
    assert tuned.card["recipe"]["rate"] == 1e-4
    assert main([*words, "-o", str(tmp_path / "third"), "--init", str(first)]) == 1
    assert "of its encoder do not fit the recipe's" in capsys.readouterr().err


def test_a_family_needs_the_plain_recipe(data, tmp_path, capsys):
    words = ["train", str(data), "-o", str(tmp_path / "run"), "--recipe", str(tmp_path / "recipe.json")]
    assert main([*words, "--init", "none", "--family", "medsam"]) == 2
    assert "expected --recipe promptable alone" in capsys.readouterr().err
