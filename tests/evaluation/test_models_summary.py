# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Numbers of the table of models, from lines written by hand."""

import json
import math

import pytest

from monai_effsam.evaluation import RobotUser
from monai_effsam.evaluation.models_answers import ModelFound
from monai_effsam.evaluation.models_rows import ModelRun, PromptedScore, read_rows, rows_csv
from monai_effsam.evaluation.models_summary import pairs_of, summarise_models
from monai_effsam.reports import models_page

BOX = {"box": RobotUser("box", 0)}


def line(model, image, dice, trivial=0.5, **more):
    known = {
        "sha256": "aa",
        "family": "",
        "runtime": "torch",
        "device": "cpu",
        "threads": 1,
        "prompt": "box",
        "seed": 0,
    }
    facts = {"set_name": "s", "group": image, "target": "polyp", "slices": 1, "label_px": 9, "mask_px": 8}
    times = {"iou": dice / (2 - dice), "quality": 0.5, "encode_ms": 3.25, "decode_ms": 1.5}
    return PromptedScore(
        model=model, image=image, dice=dice, trivial=trivial, **(known | facts | times | more)
    )


def summary_of(lines, **more):
    names = dict.fromkeys(one.model for one in lines)
    models = [ModelFound(ModelRun(name, "aa", "", "torch", "cpu", 1), 5) for name in names]
    times = {name: {"encode_ms": 1.0, "decode_ms": 2.0} for name in names}
    return summarise_models(lines, models, BOX, times=times, **more)["prompts"][0]


def test_everybody_meets_the_reference_and_the_one_before():
    assert pairs_of("abcd", "a") == [("b", "a"), ("c", "a"), ("d", "a"), ("c", "b"), ("d", "c")]
    assert pairs_of("abc", "c") == [("a", "c"), ("b", "c"), ("b", "a")]  # c after b is b against c
    assert pairs_of("a", "a") == []


def test_a_small_set_counts_as_much_as_a_large_one():
    lines = [line("m", f"{i}", 0.8) for i in range(9)] + [line("m", "z", 0.2, trivial=0.6, set_name="t")]
    entry = summary_of(lines)
    assert entry["models"][0]["mean_of_sets"] == 0.5
    assert entry["trivial"]["mean_of_sets"] == 0.55
    assert entry["models"][0]["gain"] == pytest.approx((0.3 - 0.4) / 2)


def test_what_has_no_trivial_answer_has_no_gain():
    entry = summary_of([line("m", "a", 0.8, trivial=math.nan)])
    assert (entry["models"][0]["gain"], entry["trivial"]["mean_of_sets"], entry["trivial"]["sets"]) == (
        None,
        None,
        {},
    )


def test_average_precision_is_that_of_the_order_the_model_gives_its_masks():
    found = {0.96: 0.9, 0.72: 0.8, 0.40: 0.7}
    for sign, expected in ((1, (0.5, 0.6634, 0.3366)), (-1, (0.2772, 0.4422, 0.1122))):
        lines = [line("m", f"{iou}", 0.5, iou=iou, quality=sign * score) for iou, score in found.items()]
        cell = summary_of(lines)["models"][0]["precision"]["s"]
        assert (cell["map"], cell["ap50"], cell["ap75"]) == expected
        assert cell["iou"] == 0.6933
    two = [line("m", "a", 0.5, iou=0.99), line("m", "a", 0.5, iou=0.1, target="nodule")]
    assert summary_of(two)["models"][0]["precision"]["s"]["map"] == 0.5  # of both targets alike


def test_spread_and_quartiles_are_those_on_paper():
    values = [0.0, 0.25, 0.5, 0.75, 1.0]
    cell = summary_of([line("m", f"{v}", v) for v in values])["models"][0]["sets"]["s"]
    marks = [cell[key] for key in ("tenth", "lower", "median", "upper", "ninetieth", "mean", "n")]
    assert marks == pytest.approx([0.1, 0.25, 0.5, 0.75, 0.9, 0.5, 5])
    assert cell["sd"] == pytest.approx(0.3953, abs=1e-4)


def test_targets_of_a_picture_are_one_pair_and_pictures_of_a_patient_one_too():
    lines = []
    for image, group in (("1", "p"), ("2", "p"), ("3", "q")):
        for target, ours in (("left", 0.9), ("right", 0.7)):
            lines.append(line("a", image, 0.6, group=group, target=target))
            lines.append(line("b", image, ours, group=group, target=target))
    (pair,) = summary_of(lines)["pairs"]
    assert (pair["first"], pair["second"], pair["pictures"]["n"]) == ("b", "a", 6)
    assert (pair["pictures"]["groups"], pair["patients"]["groups"]) == (3, 2)
    assert pair["pictures"]["mean"] == pytest.approx(0.2)
    assert (pair["pictures"]["p_value"], pair["patients"]["p_value"]) == (2 / 2**3, 2 / 2**2)


def test_each_family_is_corrected_by_how_many_it_holds():
    lines = [
        line(model, str(i), 0.5 + step * (i + 1), set_name=name)
        for model, step in (("a", 0.0), ("b", 0.01), ("c", 0.02))
        for name, count in (("s", 5), ("t", 6))
        for i in range(count)
    ]
    pairs = summary_of(lines)["pairs"]
    assert len(pairs) == 3
    assert {pair["sets"]["s"]["p_value"] for pair in pairs} == {2 / 2**5}
    assert {pair["sets"]["t"]["p_value"] for pair in pairs} == {2 / 2**6}
    assert {pair["sets"]["t"]["p_holm"] for pair in pairs} == {6 * 2 / 2**6}  # the three smallest of six
    assert {pair["sets"]["s"]["p_holm"] for pair in pairs} == {
        6 * 2 / 2**6
    }  # never below those: 3 / 16 is no more
    assert {round(pair["pictures"]["p_holm"] / pair["pictures"]["p_value"], 2) for pair in pairs} == {3}


def test_lines_come_back_from_their_file_as_they_were(tmp_path):
    lines = [line("m, 1", "a|b", 0.123456, trivial=0.25), line("ü", "c", 1.0, group="")]
    (tmp_path / "images.csv").write_text(rows_csv(lines))
    assert read_rows(tmp_path / "images.csv") == lines
    (tmp_path / "nan.csv").write_text(rows_csv([line("m", "a", 0.5, trivial=math.nan)]))
    assert math.isnan(read_rows(tmp_path / "nan.csv")[0].trivial)


def whole_summary(times):
    """Of two models, b a tenth better than a."""
    lines = [line(m, f"{n}", 0.5 + extra + n / 100) for m, extra in (("a", 0), ("b", 0.1)) for n in range(4)]
    models = [ModelFound(ModelRun(name, "aa", "", "torch", "cpu", 1), 5) for name in "ab"]
    summary = summarise_models(lines, models, BOX, times=times, reference="a")
    return summary | {
        "made": {
            "command": "c",
            "date": "d",
            "split": "val",
            "seed": 0,
            "threads": 1,
            "cores": 2,
            "machine": "m",
            "versions": {},
        },
        "notes": "",
    }


def test_what_is_lost_and_won_against_the_reference_stands_in_one_row():
    times = {
        "a": {"encode_ms": 90.0, "decode_ms": 10.0, "gmacs": 1.5, "images_s": {"1": 10.0, "16": 20.0}},
        "b": {"encode_ms": 30.0, "decode_ms": 20.0, "gmacs": None, "images_s": {"1": 15.0, "16": 90.0}},
    }
    page = models_page(whole_summary(times), "plot.svg")
    assert "| b | +0.1000 (+0.1000 to +0.1000) | 3.00× | 2.00× | 1.50× | 4.50× |" in page
    assert "| model | parameters [M] | GMACs | encoder [ms] | decoder [ms] | encoder, 1 at once" in page
    assert "| a | 0.00 | 1.50 | 90 | 10 | 10.0 | 20.0 |" in page
    assert "mAP is COCO's average precision" in page


def test_a_summary_of_a_former_version_still_makes_its_page(root):
    summary = json.loads((root / "docs" / "results" / "kd_sam.json").read_text())
    page = models_page(summary, "kd_sam.svg")
    assert "mAP" not in page
    assert "## Tight box" in page
