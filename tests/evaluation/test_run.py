# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A whole evaluation of a data root whose scores are known."""

import json
import re
from pathlib import Path

import pytest

from monai_effsam.errors import DataError, UnknownNameError, UsageError
from monai_effsam.evaluation import EvaluationSettings, evaluate_sets, model_name


def row(summary, title):
    return next(r for r in (*summary["rows"], *summary["others"]) if r["title"] == title)


def test_scores_of_pictures_are_those_on_paper(data_root, segmenter, tmp_path, read_csv):
    evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["busi"])
    rows = {line["image"]: line for line in read_csv(tmp_path / "out" / "images.csv")}
    dice = {name.removeprefix("images/").removesuffix(".png"): float(r["dice"]) for name, r in rows.items()}
    assert dice == pytest.approx(
        {"exact": 1, "half": 2 / 3, "missed": 0, "clear": 1, "fooled": 0, "foreign": 0}, abs=1e-4
    )
    assert rows["images/half.png"]["iou"] == "0.5"
    assert {n for n, r in rows.items() if int(r["foreign_px"])} == {"images/foreign.png"}


def test_lesions_and_normal_pictures_make_a_row_each(data_root, segmenter, tmp_path):
    summary = evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["busi"])
    lesions, normal = (
        row(summary, t)["score"] for t in (summary["rows"][0]["title"], summary["rows"][1]["title"])
    )
    assert (lesions["n"], lesions["groups"], lesions["below_half"]) == (4, 3, 0.5)
    assert lesions["mean"] == pytest.approx((1 + 2 / 3 + 0 + 0) / 4, abs=1e-4)
    assert (normal["n"], normal["mean"]) == (2, 0.5)
    assert summary["rows"][1]["counts"] == "absent"


def test_a_volume_has_one_dice_over_all_its_slices(data_root, segmenter, tmp_path):
    summary = evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["ours"])
    score = row(summary, "ours: myocardium")["score"]
    assert (score["n"], score["mean"]) == (1, pytest.approx(2 * 2 / (2 + 3), abs=1e-4))
    assert summary["sets"]["ours"]["slices"] == 2
    assert summary["time"] == {"pictures": 0, "median_ms": None}
    assert summary["calibration"]["ours"]["told"] == 0


def test_train_files_stay_out_and_all_sets_come_by_default(data_root, segmenter, tmp_path):
    summary = evaluate_sets(data_root, segmenter, tmp_path / "out")
    assert {name: facts["files"] for name, facts in summary["sets"].items()} == {"busi": 6, "ours": 1}


def test_presence_and_quality_are_compared_with_the_truth(data_root, segmenter, tmp_path):
    facts = evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["busi"])["calibration"]["busi"]
    assert (facts["told"], facts["present"], facts["masks"]) == (6, 4, 3)
    assert facts["presence_right"] == pytest.approx(4 / 6, abs=1e-4)  # missed and fooled are wrong
    assert facts["quality_bias"] == pytest.approx(0.75 - (1 + 0.5 + 0) / 3, abs=1e-4)


def test_a_line_tells_overlap_distance_and_what_is_trivial(data_root, segmenter, tmp_path, read_csv):
    evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["busi"])
    rows = {Path(line["image"]).stem: line for line in read_csv(tmp_path / "out" / "images.csv")}
    half = rows["half"]  # the upper 8 of 16 rows are found
    assert (half["precision"], half["recall"], half["prompt"], half["unit"]) == ("1.0", "0.5", "none", "px")
    assert float(half["hd95"]) == 8
    assert (rows["missed"]["hd95"], rows["missed"]["surface_dice"]) == ("inf", "0.0")
    assert (rows["missed"]["precision"], rows["clear"]["recall"], rows["clear"]["hd95"]) == ("", "", "")
    # the constant mask is the only training mask, equal to the label of "exact"
    assert float(rows["exact"]["trivial"]) > 0.95
    assert float(rows["clear"]["trivial"]) == 0


def test_rows_tell_more_than_dice(data_root, segmenter, tmp_path):
    lesions, normal = evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["busi"])["rows"]
    more = lesions["more"]
    assert more["iou"] == pytest.approx((1 + 0.5) / 4, abs=1e-4)
    assert (more["precision"], more["recall"]) == (1, pytest.approx(1.5 / 4))  # two claim nothing
    assert (more["hd95"], more["missed"], more["unit"]) == (
        None,
        2,
        "px",
    )  # half of the files are infinitely far
    assert normal["more"] is None
    assert normal["trivial"] == 0  # the constant mask never says "nothing here"


def test_distances_of_volumes_are_in_millimetres(data_root, segmenter, tmp_path):
    more = evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["ours"])["others"][0]["more"]
    assert more["unit"] == "mm"
    # the outline of the missing half of a slice lies up to 8 mm off; of the other slice up to 1 mm, through it
    assert 1 < more["hd95"] <= 8


def test_a_wider_tolerance_forgives_more(data_root, segmenter, tmp_path):
    strict, wide = (
        evaluate_sets(
            data_root, segmenter, tmp_path / f"{t}", sets=["busi"], settings=EvaluationSettings(tolerance=t)
        )["rows"][0]["more"]["surface_dice"]
        for t in (0.5, 9.0)
    )
    assert strict < wide == 0.5


def test_the_report_shows_the_worst_first(data_root, segmenter, tmp_path):
    evaluate_sets(data_root, segmenter, tmp_path / "out", settings=EvaluationSettings(worst=4))
    page = (tmp_path / "out" / "report.html").read_text()
    cards = re.findall(r"<h3>(.*?)</h3>", page)
    assert [card for card in cards if "breast" in card] == [
        f"images/{name}.png: breast lesion" for name in ("fooled", "foreign", "missed", "half")
    ]
    assert "ours/image.nii.gz: myocardium" in cards
    assert "nothing answered" in page
    assert "not in the label, 128 px answered" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def test_two_evaluations_are_compared_file_by_file(data_root, segmenter, obedient, tmp_path):
    evaluate_sets(data_root, obedient, tmp_path / "other", sets=["busi"])  # without a prompt it says nothing
    settings = EvaluationSettings(compare=tmp_path / "other")
    summary = evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["busi"], settings=settings)
    lesions, normal = summary["comparison"]
    assert (lesions["n"], lesions["groups"], lesions["better"], lesions["worse"]) == (4, 3, 1, 0)
    assert lesions["mean"] == pytest.approx((1 + 2 / 3) / 4, abs=1e-3)
    assert (normal["first"], normal["second"]) == (0.5, 1)
    assert "## Compared with the other evaluation" in (tmp_path / "out" / "table.md").read_text()


def test_an_evaluation_equals_itself(data_root, segmenter, tmp_path):
    evaluate_sets(data_root, segmenter, tmp_path / "a")
    settings = EvaluationSettings(compare=tmp_path / "a" / "summary.json")
    compared = evaluate_sets(data_root, segmenter, tmp_path / "b", settings=settings)["comparison"]
    assert [(row["mean"], row["p_value"], row["effect"]) for row in compared] == [(0, 1, 0)] * 3


def test_what_cannot_be_compared_is_refused(data_root, segmenter, tmp_path):
    evaluate_sets(data_root, segmenter, tmp_path / "a", sets=["ours"])
    settings = EvaluationSettings(compare=tmp_path / "a")
    with pytest.raises(DataError, match="no file and target in common"):
        evaluate_sets(data_root, segmenter, tmp_path / "b", sets=["busi"], settings=settings)
    assert not (tmp_path / "b").exists()  # refused before anything is segmented
    (tmp_path / "a" / "images.csv").write_text("image,dice\nx,1\n")
    with pytest.raises(DataError, match=r"is no table of scores.*set_name"):
        evaluate_sets(data_root, segmenter, tmp_path / "b", sets=["ours"], settings=settings)


def test_no_number_is_made_of_a_part(data_root, segmenter, tmp_path):
    (data_root / "busi" / "images" / "exact.png").write_bytes(b"not a picture")
    with pytest.raises(
        DataError, match=r"1 of 6 files of 'busi' failed.*exact\.png.*no number is made of a part"
    ):
        evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["busi"])
    assert not (tmp_path / "out" / "summary.json").exists()


def test_the_files_hold_what_is_returned(data_root, segmenter, tmp_path):
    out = tmp_path / "out"
    summary = evaluate_sets(data_root, segmenter, out, sets=["busi"])
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert (out / "busi" / "half_overlay.png").is_file()
    text = (out / "table.md").read_text()
    assert "# Results of toy" in text
    assert "`effsam evaluate DATA -o OUT --sets busi --model MODEL --threads " in text
    assert summary["made"]["versions"]["torch"]
    assert 50 < summary["peak_mb"] < 20000


def test_two_runs_give_the_same_numbers(data_root, segmenter, tmp_path):
    first, second = (
        evaluate_sets(data_root, segmenter, tmp_path / o, settings=EvaluationSettings(seed=5))["rows"]
        for o in "ab"
    )
    assert first == second


def test_progress_counts_steps_over_all_sets(data_root, segmenter, tmp_path):
    told = []
    evaluate_sets(data_root, segmenter, tmp_path / "out", on_step=lambda n, of: told.append((n, of)))
    assert told == [(n, 14) for n in range(1, 15)]  # answered, then scored


def test_an_earlier_evaluation_is_not_replaced_unasked(data_root, segmenter, tmp_path):
    evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["ours"])
    with pytest.raises(UsageError, match="Add --overwrite"):
        evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["ours"])
    evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["ours"], overwrite=True)


def test_wrong_split_and_set_are_refused(data_root, segmenter, tmp_path):
    with pytest.raises(UsageError, match="no file of the split 'test'"):
        evaluate_sets(data_root, segmenter, tmp_path / "out", settings=EvaluationSettings(split="test"))
    with pytest.raises(UnknownNameError, match="Did you mean 'busi'"):
        evaluate_sets(data_root, segmenter, tmp_path / "out", sets=["bussi"])
    assert not (tmp_path / "out").exists()


def test_a_model_is_called_after_its_bundle(segmenter):
    assert model_name(segmenter.model) == "toy"
    segmenter.model.card["name"] = "given"
    assert model_name(segmenter.model) == "given"
