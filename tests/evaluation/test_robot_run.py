# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A simulated user in front of a network that does what it is told."""

import math

import numpy as np
import pytest

from monai_effsam.errors import UsageError
from monai_effsam.evaluation import EvaluationSettings, RobotUser, ellipse_in, evaluate_sets
from monai_effsam.evaluation.robot import jittered_box
from monai_effsam.metrics import dice_score


@pytest.fixture
def evaluate(data_root, obedient, tmp_path):
    """Runs a user over some sets; gives the summary and the lines of images.csv."""

    def run(user, sets, read_csv, folder="out"):
        settings = EvaluationSettings(robot=user)
        summary = evaluate_sets(data_root, obedient, tmp_path / folder, sets=sets, settings=settings)
        return summary, read_csv(tmp_path / folder / "images.csv")

    return run


def test_a_tight_box_around_a_block_is_the_block(evaluate, read_csv):
    summary, lines = evaluate(RobotUser("box", 0), ["busi"], read_csv)
    assert {line["prompt"] for line in lines} == {"box"}
    assert [float(line["dice"]) for line in lines] == [1.0] * 4  # files without a lesion are not prompted
    row = summary["rows"][0]
    assert (row["score"]["n"], row["score"]["mean"]) == (4, 1)
    assert row["trivial"] == pytest.approx(
        math.pi / 4 * 2 / (math.pi / 4 + 1), abs=0.01
    )  # ellipse against box
    assert row["floor"] is None
    assert [r["title"] for r in summary["rows"]] == ["breast lesion, images with one"]


def test_a_jittered_box_costs_and_the_ellipse_pays_too(evaluate, read_csv):
    tight, _ = evaluate(RobotUser("box", 0), ["busi"], read_csv, "a")
    loose, _ = evaluate(RobotUser("box", 0, jitter=100), ["busi"], read_csv, "b")
    again, _ = evaluate(RobotUser("box", 0, jitter=100), ["busi"], read_csv, "c")
    assert loose["rows"][0]["score"]["mean"] < 0.95
    assert loose["rows"][0]["trivial"] < tight["rows"][0]["trivial"]
    assert loose["rows"] == again["rows"]


def test_the_ellipse_stands_in_the_very_box_that_was_prompted(evaluate, read_csv):
    user = RobotUser("box", 0, jitter=100)
    _, lines = evaluate(user, ["busi"], read_csv)
    line = next(line for line in lines if line["image"] == "images/exact.png")
    label = np.zeros((32, 32), bool)
    label[8:16, 8:24] = True
    x0, y0, x1, y1 = jittered_box(label, user, user.random("busi/images/exact.png/breast_lesion/0"))
    y, x = np.mgrid[:32, :32] + 0.5
    inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
    assert float(line["dice"]) == pytest.approx(dice_score(inside, label), abs=1e-4)
    assert float(line["trivial"]) == pytest.approx(
        dice_score(ellipse_in((x0, y0, x1, y1), (32, 32)), label), abs=1e-4
    )


def test_every_click_mends_and_is_a_round(evaluate, read_csv):
    summary, lines = evaluate(RobotUser("points", 3), ["busi"], read_csv)
    assert [r["prompt"] for r in summary["rounds"]] == ["1 click", "2 clicks", "3 clicks"]
    means = [r["rows"]["breast lesion, images with one"]["mean"] for r in summary["rounds"]]
    assert means[0] < means[1] < means[2]
    assert summary["rows"][0]["score"]["mean"] == means[-1]
    assert len(lines) == 3 * 4
    assert summary["rows"][0]["trivial"] > 0.5  # without a box the constant mask


def test_who_is_content_stops_clicking(evaluate, read_csv):
    summary, _ = evaluate(RobotUser("box", 2), ["busi"], read_csv)
    assert [r["rows"]["breast lesion, images with one"]["mean"] for r in summary["rounds"]] == [1, 1, 1]
    assert summary["rounds"][1]["median_decode_ms"] == 0


def test_slices_of_a_volume_are_prompted_one_by_one_and_scored_as_one(evaluate, read_csv):
    summary, lines = evaluate(RobotUser("box", 0), ["ours"], read_csv)
    assert (len(lines), lines[0]["slices"], float(lines[0]["dice"])) == (1, "2", 1)
    assert summary["others"][0]["more"]["hd95"] == 0


def test_the_pages_tell_of_the_user(evaluate, read_csv, tmp_path):
    evaluate(RobotUser("box", 1, jitter=20), ["busi"], read_csv)
    table = (tmp_path / "out" / "table.md").read_text()
    assert "--robot box --clicks 1 --jitter 20" in table
    assert "| mean Dice | box | box + 1 click |" in table
    assert "strays by up to 20 pixels" in table
    assert "the ellipse that the very same box frames" in table
    assert "no prompt" not in table
    assert "Simulated user: box, then 1 click" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "busi" / "exact_breast_lesion_mask.png").is_file()


def test_labels_without_a_target_give_nobody_anything_to_do(data_root, obedient, tmp_path):
    table = data_root / "busi" / "splits.csv"
    normal = [
        line for line in table.read_text().splitlines() if "normal" in line or line.startswith("image,")
    ]
    table.write_text("\n".join(normal) + "\n")
    settings = EvaluationSettings(robot=RobotUser("box", 0))
    with pytest.raises(UsageError, match="no label holds a target"):
        evaluate_sets(data_root, obedient, tmp_path / "out", sets=["busi"], settings=settings)
