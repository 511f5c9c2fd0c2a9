# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Cases and MONAI items are the same to a training; whole groups are held out."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from monai_effsam.data.sets import Case
from monai_effsam.data.training_slices import TrainingSlices, as_case, as_item
from monai_effsam.errors import DataError, UnknownNameError
from monai_effsam.specs import ImageSpec

SPECS = {"mr": ImageSpec(32)}


@pytest.fixture
def item(tmp_path):
    """A picture whose mask holds a spleen (12) and a liver (17), by the target table."""
    mask = np.zeros((20, 24), np.uint8)
    mask[2:8], mask[12:18] = 12, 17
    cv2.imwrite(str(tmp_path / "image.png"), mask * 9)
    cv2.imwrite(str(tmp_path / "label.png"), mask)
    return {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "label.png")}


def test_a_case_survives_as_an_item():
    case = Case(Path("a/i.png"), Path("a/m.png"), "mr", {1: "liver"}, "p1", "train", "scans")
    assert as_case(as_item(case)) == case


def test_values_in_json_keys_are_numbers_again(item):
    case = as_case({**item, "values": {"3": "liver"}}, "mr")
    assert case.values == {3: "liver"}


def test_without_values_the_mask_holds_the_table_s(item):
    dataset = TrainingSlices([item], SPECS, modality=["mr", "ct"])
    assert len(dataset) == 1
    assert np.unique(dataset[0].label).tolist() == [0, 6, 10]  # 1 + place among the targets of mr
    assert dataset.summary() == {"mr": {"trained": 1, "calibrated": 0}}
    assert dataset.held == []


def test_groups_are_held_out_whole(item):
    items = [{**item, "modality": "mr", "case": f"p{i // 2}"} for i in range(120)]
    dataset = TrainingSlices(items, SPECS, held_out=0.2)
    trained, calibrated = ({c.group for c in part} for part in (dataset.trained, dataset.calibrated))
    assert not trained & calibrated
    assert len(dataset) + len(dataset.held) == 120
    assert 5 < len(dataset.held) < 50
    assert dataset.summary() == {"mr": {"trained": len(dataset), "calibrated": len(dataset.held)}}


def test_what_cannot_be_trained_on_is_named(item):
    with pytest.raises(DataError, match="no labelled images, expected at least one"):
        TrainingSlices([], SPECS)
    with pytest.raises(DataError, match="lacks 'image', 'label' or 'modality'"):
        as_case(item)
    with pytest.raises(UnknownNameError, match="modality 'mri' is unknown"):
        as_case(item, "mri")
