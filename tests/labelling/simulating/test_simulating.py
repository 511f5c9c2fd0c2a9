# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Simulated rounds of labelling: counted right, told right, the same for every strategy."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("filelock")

from monai_effsam.checkpoints import load_model
from monai_effsam.labelling.simulating.__main__ import main
from monai_effsam.labelling.simulating.report import (
    above_random,
    labels_to_reach,
    learning_curves,
    savings,
    simulation_table,
)
from monai_effsam.labelling.simulating.rounds import (
    RoundPlan,
    RoundRow,
    clicks_to_mend,
    read_rows,
    run_rounds,
)
from tests.labelling.discs import write_set


def test_clicks_are_the_wrong_pieces_and_one():
    label = np.zeros((100, 100), bool)
    label[10:40, 10:40] = True
    assert clicks_to_mend(label, label) == 1
    assert clicks_to_mend(np.zeros_like(label), label) == 2
    mask = label.copy()
    mask[60:70, 60:70] = True  # a piece of one percent
    mask[90, 90] = True  # a speck
    mask[10:20, 10:20] = False
    assert clicks_to_mend(mask, label) == 3
    assert clicks_to_mend(np.indices((100, 100)).sum(0) // 10 % 2 == 0, np.zeros_like(label)) <= 10


class Fake:
    """An app whose Dice grows with its labels."""

    def __init__(self):
        self.given, self.log = [], []

    def choose(self, strategy, count, round_):
        self.log.append((strategy, count, round_))
        return [f"n{len(self.given) + k}" for k in range(count)]

    def label(self, names):
        self.given += names
        return 3 * len(names)

    def train(self):
        self.log.append("train")

    def dice(self):
        return len(self.given) / 100


def test_rounds_follow_the_plan():
    app, ticks = Fake(), iter(range(0, 1000, 10))
    rows = list(run_rounds(app, RoundPlan(5, 10, 2), "set", "combined", 7, lambda: next(ticks)))
    assert [(r.round, r.labels, r.clicks, r.dice) for r in rows] == [
        (0, 0, 0, 0),
        (1, 5, 15, 0.05),
        (2, 15, 45, 0.15),
    ]
    assert app.log == [("combined", 5, 0), "train", ("combined", 10, 1), "train"]
    assert {r.seconds for r in rows} == {10}


def rows_of(curves):
    return [
        RoundRow("kvasir", strategy, seed, n, 20 * n, 50 * n, dice + 0.01 * seed, 1.0)
        for strategy, curve in curves.items()
        for seed in (0, 2)
        for n, dice in enumerate(curve)
    ]


def test_labels_saved_are_read_off_the_mean_curves():
    rows = rows_of(
        {"random": [0.5, 0.6, 0.7, 0.8], "best": [0.5, 0.7, 0.9, 0.9], "worse": [0.5, 0.55, 0.6, 0.7]}
    )
    assert labels_to_reach(rows, "kvasir", "random", 0.81) == pytest.approx(60)
    assert labels_to_reach(rows, "kvasir", "best", 0.81) == pytest.approx(30)
    assert savings(rows, "kvasir", "random") == pytest.approx(0)
    assert savings(rows, "kvasir", "best") == pytest.approx(0.5)
    assert savings(rows, "kvasir", "worse") is None
    table = simulation_table(rows)
    assert "| best | 0.510 ± 0.010 | 0.710 ± 0.010 | 0.910 ± 0.010 | 0.910 ± 0.010 |" in table
    assert "| best | 50 % | 50 % | +0.150 ± 0.000 | 150 | 2.50 |" in table
    assert "| worse | not reached | not reached | -0.100 ± 0.000 |" in table
    for picture in (learning_curves(rows), learning_curves(rows, clicks=True)):
        assert picture.startswith("<svg")
        assert "kvasir" in picture
        assert "best" in picture


def test_labels_saved_for_good_are_those_that_are_not_lost_again():
    rows = rows_of({"random": [0.5, 0.6, 0.7, 0.8], "unsteady": [0.5, 0.9, 0.7, 0.9]})
    assert savings(rows, "kvasir", "unsteady") == pytest.approx(1 - (20 * 0.3 / 0.4) / 60)
    assert savings(rows, "kvasir", "unsteady", for_good=True) == pytest.approx(1 - 50 / 60)


def test_dice_above_random_is_paired_by_seed():
    rows = rows_of({"random": [0.5, 0.6, 0.7, 0.8], "other": [0.1, 0.1, 0.8, 0.8]})
    seed = next(r.seed for r in rows)
    rows = [replace(r, dice=r.dice + 0.02) if (r.strategy, r.seed) == ("other", seed) else r for r in rows]
    mean, half = above_random(rows, "kvasir", "other")
    assert mean == pytest.approx(0.06)  # (0.1 + 0) / 2, and 0.02 more for one of two seeds
    assert half == pytest.approx(12.706 * 0.01, rel=1e-3)


@pytest.fixture
def data(tmp_path):
    """A set of discs: 14 to train on, 4 to test on."""
    return write_set(tmp_path / "data", 14, 4).parent


def test_the_command_in_small(tiny_model, data, tmp_path):
    out = tmp_path / "out"
    arguments = [
        "--data", data, "--model", tiny_model, "--set", "discs", "--out", out, "--seed", 0, "--start", 3, "--step", 3,
        "--rounds", 2, "--candidates", 6, "--steps", 3, "--batch", 2, "--pool", 12, "--test", 4,
    ]  # fmt: skip
    for strategy in ("random", "disagreement", "combined", "foreground", "diversity"):
        arguments += ["--strategy", strategy]
    assert main(list(map(str, arguments))) == 0
    rows = read_rows(out / "rows.jsonl")
    assert [(r.strategy, r.round, r.labels) for r in rows[:3]] == [
        ("random", 0, 0),
        ("random", 1, 3),
        ("random", 2, 6),
    ]
    assert len(rows) == 15
    first = [[r.dice for r in rows if r.round == n] for n in (0, 1)]
    assert len(set(first[0])) == len(set(first[1])) == 1  # the first round is the same for every strategy
    assert all(r.clicks >= r.labels for r in rows)
    before = (out / "rows.jsonl").read_text()
    assert main(list(map(str, arguments))) == 0  # what is done is passed over
    assert (out / "rows.jsonl").read_text() == before
    (out / "rows.jsonl").unlink()
    assert main(list(map(str, arguments))) == 0  # from the maps on disk: the same numbers
    again = [json.loads(line) | {"seconds": 0} for line in (out / "rows.jsonl").read_text().splitlines()]
    assert again == [json.loads(line) | {"seconds": 0} for line in before.splitlines()]
    assert "| combined |" in (out / "table.md").read_text()
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    assert main([*map(str, arguments), "--size", "32", "--write-docs", str(page)]) == 0
    assert "| combined |" in page.read_text()
    assert "--size 32`; not edited" in page.read_text()
    assert (page.parent / "page_clicks.svg").read_text().startswith("<svg")
    assert load_model(out / "model" / "model.pt").specs["ct"].size == 32
    assert (out / "labels.svg").read_text().startswith("<svg")
