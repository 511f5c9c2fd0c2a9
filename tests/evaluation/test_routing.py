# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Numbers of a modality router: checked by hand on a few answers."""

import json
import re

import numpy as np
import pytest

from monai_effsam.data.routing.pictures import ModalityPicture
from monai_effsam.errors import DataError
from monai_effsam.evaluation.routing import __main__ as command
from monai_effsam.evaluation.routing import judging
from monai_effsam.evaluation.routing.answers import (
    RouterAnswers,
    answers_of,
    foreign_pictures,
    judged_sources,
    kept_share,
    router_milliseconds,
)
from monai_effsam.evaluation.routing.page import RouterJudgement, judgement_json, routing_page


def answers(*rows, truth, sources=None):
    return RouterAnswers(
        ("ct", "mr"), 0.6, np.array(truth), np.array(rows, float), sources or tuple("a" for _ in truth)
    )


@pytest.fixture
def few():
    """CT right, CT unsure, CT taken for foreign, MR right."""
    return answers(
        [0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.3, 0.1, 0.6], [0.1, 0.8, 0.1], truth=[0, 0, 0, 1],
        sources=("a", "a", "b", "c"),
    )  # fmt: skip


@pytest.fixture
def foreign():
    return answers([0.1, 0.1, 0.8], [0.7, 0.2, 0.1], truth=[2, 2], sources=("noise", "text"))


def test_answers_below_the_threshold_are_unknown(few):
    assert few.named().tolist() == [0, 2, 2, 1]
    assert few.named(0).tolist() == [0, 0, 0, 1]
    assert few.named(0.4).tolist() == [0, 0, 2, 1]


def test_accuracy_is_the_mean_over_modalities(few):
    assert few.balanced_accuracy(0) == 1
    assert few.balanced_accuracy() == pytest.approx((1 / 3 + 1) / 2)
    assert few.confusion().tolist() == [[1, 0, 2], [0, 1, 0], [0, 0, 0]]
    assert few.by_source() == {"a": (1, 2), "b": (0, 1), "c": (1, 1)}


def test_the_threshold_of_a_recall_keeps_that_share(few):
    assert (few.named(few.recall_threshold(0.5)) < 2).sum() == 2
    assert few.recall_threshold(1.0) == 0.3


def test_foreign_pictures_count_where_they_are_unknown(foreign):
    assert kept_share(foreign, 0.6) == {"noise": (1, 1), "text": (0, 1), "all": (1, 2)}
    assert kept_share(foreign, 0.75)["all"] == (2, 2)


def test_calibration_compares_what_is_said_with_what_is(few):
    assert few.calibration_error() == pytest.approx((0.1 + 0.5 + 0.6 + 0.2) / 4)


def judgement(few, foreign, folds):
    machine = {"machine": "Linux", "versions": {"python": "3"}}
    left_out = dict.fromkeys(folds, ("busi",))
    trained = dict.fromkeys(["", *folds], "9 steps")
    return RouterJudgement(
        few, folds, left_out, trained, foreign, (3.0, 4.0), 900000, "onnxruntime", machine, "python X"
    )


def test_the_page_shows_every_row(few, foreign):
    page = routing_page(judgement(few, foreign, {"Fold 1": few}))
    assert "| balanced accuracy on val | at least 99 % | 100.0 % | 66.7 %" in page
    assert "### Fold 1: without busi\n\nHow it was trained: 9 steps." in page
    assert "| text | " in page
    assert "3.0 ms" in page
    assert "    python X" in page
    alone = routing_page(judgement(few, foreign, {}))
    assert "not measured" in alone
    assert "Sources left out of training" not in alone


def test_the_page_s_pictures_are_written_beside_it(few, foreign, tmp_path):
    page = judging.write_judgement(judgement(few, foreign, {}), tmp_path)
    linked = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert linked == ["modality_router_val.svg"]
    assert "ct called unknown: 2 of 3" in (tmp_path / linked[0]).read_text()


def test_the_numbers_of_folds_are_pooled(few, foreign):
    told = judgement_json(judgement(few, foreign, {"Fold 1": few, "Fold 2": few}))
    assert told["balanced_accuracy_other_sources_with_unknown"] == round(few.balanced_accuracy(), 4)
    assert told["foreign_unknown_as_shipped"] == 0.5
    json.dumps(told)


def test_a_router_is_asked_picture_by_picture(bright_router):
    pictures = [
        ModalityPicture(np.full((9, 9, 3), grey, np.uint8), name, "s", "")
        for grey, name in ((5, "ct"), (128, ""))
    ]
    found = answers_of(bright_router, pictures)
    assert found.named().tolist() == [5, 7]
    assert found.balanced_accuracy() == 1
    assert router_milliseconds(bright_router, 64, 2)[1] > 0
    with pytest.raises(DataError, match="no pictures"):
        answers_of(bright_router, [])
    with pytest.raises(DataError, match="trained on every source"):
        judged_sources(bright_router, [])


def test_foreign_pictures_are_of_kinds_that_are_not_trained_on():
    assert {"letter", "photograph"} >= {p.source for p in foreign_pictures(1)} & {
        "letter",
        "photograph",
        "text",
    }


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    assert command.main([str(tmp_path), "-o", str(tmp_path / "o"), "--router", str(tmp_path / "none")]) == 2
    assert "no router here" in capsys.readouterr().err
