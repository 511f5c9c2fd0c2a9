# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The eye on held-out pictures: what it keeps, when it stops, and that it goes on where it was."""

import json

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from monai_effsam.engines.watch import HeldOutWatch


class Counter(nn.Module):
    """One weight, which each step raises by one."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


def run(tmp_path, values, *, smaller=True, patience=2, watch=None, epochs=None):
    """An engine of one step an epoch; `values` are measured one after the other, the first before any step."""
    module = Counter()
    queue = list(values)
    measure = (lambda: {"key": queue.pop(0)}) if values else None
    eye = HeldOutWatch(
        module, measure, "key", tmp_path / "stage" / "held_out.jsonl", smaller=smaller, patience=patience
    )
    if watch is not None:
        eye.load_state_dict(watch.state_dict())
        module.load_state_dict({"weight": torch.tensor(float(len(eye.history) - 1))})
    engine = Engine(lambda *_: module.weight.data.add_(1))
    eye.attach(engine)
    engine.run([0], max_epochs=epochs or len(values) - (watch is None))
    return eye, engine


@pytest.mark.parametrize(
    ("values", "smaller", "best"),
    [([3, 2, 1, 2], True, 2), ([3, 4, 5, 9], True, 0), ([0.1, 0.5, 0.5, 0.2], False, 1)],
)
def test_the_best_weights_are_kept_those_before_the_first_step_among_them(tmp_path, values, smaller, best):
    eye, _ = run(tmp_path, values, smaller=smaller, patience=9)
    assert eye.best_epoch == best
    assert eye.best["weight"] == best
    rows = [json.loads(line) for line in eye.file.read_text().splitlines()]
    assert rows == [{"epoch": i, "key": v} for i, v in enumerate(values)]


def test_patience_ends(tmp_path):
    eye, engine = run(tmp_path, [3, 1, 2, 2, 0, 0], patience=2)
    assert engine.state.epoch == 3
    assert eye.finished
    assert eye.best_epoch == 1


def test_it_goes_on_where_it_was(tmp_path):
    first, _ = run(tmp_path, [3, 1])
    again, engine = run(tmp_path, [2, 2, 0], watch=first, epochs=3)
    assert [row["key"] for row in again.history] == [3, 1, 2, 2]
    assert again.best["weight"] == 1
    assert engine.state.epoch == 2  # patience of two, one of which was not used up before


def test_without_a_measure_the_last_weights_are_kept(tmp_path):
    eye, _ = run(tmp_path, [], epochs=3)
    assert eye.best["weight"] == 3
    assert not eye.file.exists()
