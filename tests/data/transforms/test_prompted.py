# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Boxes from labels that stray and come again, and a prompted object's logits as a label map."""

import cv2
import numpy as np
import pytest
import torch

from monai_effsam.data.transforms import BoxOfLabeld, FitToSpecd, PromptedMaskd
from monai_effsam.errors import DataError, UnknownNameError, UsageError
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import OBJECT, TARGETS

SPECS = {"": ImageSpec(64, resize="longest"), "ct": ImageSpec(64, intensity="tissue")}
ROW = {t.name: i for i, t in enumerate(TARGETS, 1) if t.modality == "mr"}


@pytest.fixture
def item(tmp_path):
    """A grey picture of 40 x 80 in MR, with a liver and a spleen."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 80), 90, np.uint8))
    label = torch.zeros(1, 40, 80, dtype=torch.uint8)
    label[:, 10:20, 30:50] = ROW["liver"]
    label[:, 25:30, 5:9] = ROW["spleen"]
    fitted = FitToSpecd("image", SPECS)({"image": str(tmp_path / "a.png"), "modality": "mr"})
    return {**fitted, "label": label, "target": "liver"}


def test_a_modality_is_not_needed_where_a_spec_is_for_all(item, tmp_path):
    found = FitToSpecd("image", SPECS)({"image": str(tmp_path / "a.png")})
    assert found["modality"] == ""
    assert found["image"].shape == (3, 64, 64)
    with pytest.raises(UsageError, match="modality is unknown, expected one of ct"):
        FitToSpecd("image", {"ct": SPECS["ct"]})({"image": str(tmp_path / "a.png")})
    with pytest.raises(UnknownNameError, match="modality"):
        FitToSpecd("image", SPECS, "mri")({"image": str(tmp_path / "a.png")})


def test_the_box_frames_the_target_and_the_rest_is_left_out(item):
    found = BoxOfLabeld("label", jitter=0.0)(item)
    assert found["prompts"].box == (30, 10, 50, 20)
    assert found["label"].unique().tolist() == [0, ROW["liver"]]
    assert found["label"].count_nonzero() == 200


def test_sides_stray_by_no_more_than_is_said_and_the_same_way_again(item):
    jitter = 51.2  # 4 px at a longest side of 80
    boxes = [BoxOfLabeld("label", jitter=jitter, seed=seed)(dict(item))["prompts"].box for seed in range(60)]
    stray = np.abs(np.array(boxes) - (30, 10, 50, 20))
    assert 3.5 < stray.max() <= 4
    assert (stray.max(0) > 3).all()  # each side by itself
    assert BoxOfLabeld("label", jitter=jitter)(dict(item))["prompts"].box == boxes[0]
    assert len(set(boxes)) == 60


def test_boxes_stay_in_the_picture_and_a_pixel_wide(item):
    for seed in range(40):
        box = BoxOfLabeld("label", jitter=2000.0, seed=seed)(dict(item))["prompts"].box
        assert 0 <= box[0] <= box[2] - 1 <= 79
        assert 0 <= box[1] <= box[3] - 1 <= 39


def test_a_label_without_the_target_is_refused(item):
    with pytest.raises(DataError, match="its label holds no aorta"):
        BoxOfLabeld("label")({**item, "target": "aorta"})


@pytest.mark.parametrize(
    ("numbering", "target", "value"),
    [("value", "liver", 17), ("row", "liver", ROW["liver"]), ("value", None, OBJECT.value)],
)
def test_logits_become_a_map_of_the_picture_s_size(item, numbering, target, value):
    logits = torch.full((1, 16, 16), -3.0)
    logits[:, 2:4, 4:8] = 3.0  # of a frame of 64 px, of which the picture takes the upper half
    transform = PromptedMaskd("pred", SPECS, numbering=numbering)
    found = transform({**item, "pred": logits, "target": target})["pred"]
    assert found.shape == (1, 40, 80)
    assert found.dtype == torch.uint8
    assert found.unique().tolist() == [0, value]
    rows, columns = np.nonzero(found[0].numpy())
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (10, 20, 20, 40)
