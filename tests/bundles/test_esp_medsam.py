# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The bundle's configurations, started in this process."""

import json

import cv2
import numpy as np
import pytest
import torch


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
    assert report["mr/liver"]["dice"] == pytest.approx(flow.evaluator.state.metrics["val_mean_dice"], abs=1e-4)
