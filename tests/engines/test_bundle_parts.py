# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Items, choices, weights and handlers that the configurations of bundles name."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from ignite.engine import Engine

from monai_effsam.checkpoints import save_model
from monai_effsam.engines.build import build_network
from monai_effsam.engines.bundle_parts import (
    TargetDice,
    bundle_specs,
    bundle_weights,
    image_items,
    labelled_items,
    modality_choices,
)
from monai_effsam.engines.recipe import Recipe, read_recipe
from monai_effsam.errors import DataError, UnknownNameError, UsageError, WeightsError
from monai_effsam.targets import TARGETS


def test_items_of_sets_know_modality_and_values(data_root):
    items = labelled_items(data_root, "val")
    assert [(i["set"], i["modality"], i["values"]) for i in items] == [
        ("polyps", "endoscopy", {1: "polyp"}),
        ("polyps", "endoscopy", {1: "polyp"}),
        ("scans", "ultrasound", {2: "breast_lesion"}),
        ("scans", "ultrasound", {2: "breast_lesion"}),
    ]
    assert len(labelled_items(data_root, "train")) == 6 + 4


def test_items_of_pairs_have_the_values_of_the_table(tmp_path):
    for name in ("a", "b", "c"):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), np.zeros((8, 8), np.uint8))
    items = [
        *labelled_items(tmp_path, "train", ["ultrasound"]),
        *labelled_items(tmp_path, "val", "ultrasound"),
    ]
    assert sorted(i["case"] for i in items) == ["a", "b", "c"]
    assert all(i["values"] == {3: "breast_lesion", 4: "fetal_head"} for i in items)


def test_a_split_that_is_not_there_is_named(data_root):
    with pytest.raises(DataError, match="no labelled images of split 'test', expected at least one"):
        labelled_items(data_root, "test")


def test_images_of_a_folder_become_items(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4), np.uint8))
    assert [item["image"].name for item in image_items(tmp_path)] == ["a"]
    with pytest.raises(UsageError):
        image_items(tmp_path / "missing")


def test_the_chosen_modality_comes_first():
    assert modality_choices("b", ("a", "b", "c")) == ["b", "a", "c"]
    assert modality_choices(None, ("a", "b")) == ["", "a", "b"]
    with pytest.raises(UnknownNameError, match="modality 'd' is unknown, expected one of a, b"):
        modality_choices("d", ("a", "b"))


def test_weights_are_checked_before_they_are_taken(tiny_recipe, tmp_path):
    recipe = Recipe(**tiny_recipe)
    network = build_network(recipe)
    file = save_model(tmp_path / "models" / "model.pt", network, recipe.specs(), recipe.network_options())
    fresh = bundle_weights(build_network(recipe), tmp_path)
    torch.testing.assert_close(fresh.state_dict(), network.state_dict(), atol=1e-3, rtol=1e-3)
    assert bundle_specs(tmp_path) == recipe.specs()
    file.write_bytes(file.read_bytes()[:-9] + b"corrupted")
    with pytest.raises(WeightsError, match="the file is damaged or was exchanged"):
        bundle_weights(fresh, tmp_path)


def test_a_recipe_is_read_with_changes(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"epochs": 4, "mean": [0, 0, 0], "seed": 3}))
    assert read_recipe(path, epochs=2, seed=None) == Recipe(epochs=2, mean=(0, 0, 0), seed=3)
    path.write_text(json.dumps({"epoch": 4}))
    with pytest.raises(
        UsageError, match=r"holds the fields \['epoch'\], expected some of .*encoder, decoder"
    ):
        read_recipe(path)
    with pytest.raises(UsageError, match="is not a readable JSON file"):
        read_recipe(tmp_path / "missing.json")


def test_the_dice_of_a_target_counts_only_images_that_hold_it(tmp_path):
    details = torch.full((3, len(TARGETS)), float("nan"))
    liver = next(i for i, t in enumerate(TARGETS) if (t.modality, t.name) == ("mr", "liver"))
    details[0, liver], details[2, liver], details[1, 0] = 0.5, 0.7, 0.25
    engine = SimpleNamespace(state=SimpleNamespace(metric_details={"dice": details}))
    TargetDice(tmp_path, "dice")(engine)
    assert json.loads((tmp_path / "dice.json").read_text()) == {
        "endoscopy/polyp": {"dice": 0.25, "images": 1},
        "mr/liver": {"dice": 0.6, "images": 2},
    }


def test_the_report_is_made_at_the_end_of_a_run(tmp_path):
    engine = Engine(lambda *_: None)
    engine.state.metric_details = {"val_mean_dice": torch.zeros(1, len(TARGETS))}
    TargetDice(tmp_path).attach(engine)
    assert not (tmp_path / "dice.json").exists()
    engine.run([0])
    assert len(json.loads((tmp_path / "dice.json").read_text())) == len(TARGETS)
