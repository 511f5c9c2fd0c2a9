# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The rows that a release is judged by, and what is known of the sets behind them."""

import json

import pytest

from monai_effsam.data.sets import read_set, set_names
from monai_effsam.evaluation import ROWS, rows_for
from monai_effsam.targets import TARGETS


def test_rows_name_targets_that_exist():
    assert {target for row in ROWS for target in row.targets} <= {target.name for target in TARGETS}


def test_aims_lie_above_floors():
    assert [row.title for row in ROWS if not 0 < row.floor < row.aim < 1] == []


def test_a_target_is_judged_or_stands_among_the_others_once():
    judged, others = rows_for(
        {"busi": ("breast_lesion",), "btcv_ct": ("liver", "kidney_left", "kidney_right", "aorta")}
    )
    assert [row.targets for row in judged] == [
        ("breast_lesion",), ("breast_lesion",), ("liver",), ("kidney_right", "kidney_left"),
    ]  # fmt: skip
    assert [(row.set_name, row.targets) for row in others] == [("btcv_ct", ("aorta",))]


def test_a_set_of_that_name_with_other_targets_is_not_judged():
    judged, others = rows_for({"acdc": ("myocardium", "left_atrium")})
    assert [row.title for row in judged] == ["ACDC myocardium"]
    assert [row.title for row in others] == ["acdc: left_atrium"]


@pytest.mark.data
def test_the_data_folder_fills_every_row(shared):
    root = shared / "data"
    cases = {name: read_set(root / name, split="val") for name in set_names(root)}
    targets = {name: tuple(own[0].values.values()) for name, own in cases.items() if own}
    assert rows_for(targets)[0] == list(ROWS)


@pytest.mark.data
def test_terms_of_every_set_are_on_record(shared, root):
    terms = json.loads((root / "bundles" / "esp_medsam" / "docs" / "data_terms.json").read_text())["sets"]
    assert set(set_names(shared / "data")) == terms.keys()
    assert [
        name for name, facts in terms.items() if facts.keys() != {"title", "labels", "terms", "limits"}
    ] == []
