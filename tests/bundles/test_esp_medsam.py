# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The bundle's configurations, started in this process."""

import json

import cv2
import numpy as np
import pytest
import torch

from monai_effsam.checkpoints import load_model, save_model
from monai_effsam.data.sets import read_sets
from monai_effsam.engines.build import build_network
from monai_effsam.engines.recipe import read_recipe
from monai_effsam.engines.training_run import train


def losses(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def test_inference_writes_a_mask_in_the_grid_of_each_image(workflow, pictures, tmp_path):
    flow = workflow("inference", dataset_dir=str(pictures), output_dir=str(tmp_path / "out"))
    flow.run()
    mask = cv2.imread(str(tmp_path / "out" / "disk_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (40, 52)


def test_evaluation_reports_the_targets_that_the_labels_hold(workflow, sets, tmp_path):
    flow = workflow("evaluate", dataset_dir=str(sets), output_dir=str(tmp_path))
    flow.run()
    report = json.loads((tmp_path / "dice.json").read_text())
    assert list(report) == ["mr/liver"]
    assert report["mr/liver"]["images"] == 1
    assert report["mr/liver"]["dice"] == pytest.approx(
        flow.evaluator.state.metrics["val_mean_dice"], abs=1e-4
    )


def test_the_bundle_trains_as_the_library_does(workflow, small_bundle, sets, tmp_path):
    flow = workflow(
        "train",
        kind="train",
        where=small_bundle,
        dataset_dir=str(sets),
        output_dir=str(tmp_path / "run"),
        epochs=1,
        epoch_length=2,
        val_interval=1,
    )
    flow.run()
    recipe = read_recipe(small_bundle / "configs" / "recipe.json", epochs=1, epoch_length=2)
    train(recipe, read_sets(sets, split="train"), tmp_path / "library")
    for bundled, direct in zip(losses(tmp_path / "run"), losses(tmp_path / "library"), strict=True):
        assert bundled == pytest.approx(direct, rel=1e-4, abs=1e-5)
    first, second = load_model(small_bundle), load_model(tmp_path / "library")
    for name, weights in first.network.state_dict().items():
        torch.testing.assert_close(weights, second.network.state_dict()[name], rtol=1e-3, atol=1e-4, msg=name)
    assert "mr/liver" in json.loads((tmp_path / "run" / "dice.json").read_text())


def test_a_viewer_trains_its_own_items_from_the_shipped_weights(workflow, small_bundle, sets, tmp_path):
    recipe = read_recipe(small_bundle / "configs" / "recipe.json")
    shipped = build_network(recipe)
    model = save_model(
        small_bundle / "models" / "model.pt", shipped, recipe.specs(), recipe.network_options()
    )
    draw_mask = np.zeros((40, 52), np.uint8)
    draw_mask[10:20, 10:30] = 17  # the liver's value in the target table
    cv2.imwrite(str(tmp_path / "label.png"), draw_mask)
    item = {"image": str(sets / "scans" / "images" / "0.png"), "label": str(tmp_path / "label.png")}
    config = json.loads((small_bundle / "configs" / "train.json").read_text())
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(model),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    flow = workflow(
        "train",
        kind="train",
        where=small_bundle,
        output_dir=str(tmp_path / "run"),
        init="none",
        epoch_length=1,
        displayable_configs={"modality": ["mr", "ct"]},
        **{
            "train#trainer#max_epochs": 1,
            "train#dataset#data": [item],
            "validate#dataset#data": [],
            "train#handlers": [loader, *config["train"]["handlers"]],
        },
    )
    flow.run()
    trained = load_model(small_bundle).network
    assert flow.trainer.state.iteration == 1
    start = shipped.state_dict()["decoder.mask_query.weight"]
    torch.testing.assert_close(
        trained.state_dict()["decoder.mask_query.weight"], start.half().float(), atol=1e-3, rtol=0.02
    )
