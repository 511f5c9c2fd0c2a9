# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The simulated user points at what is there."""

import numpy as np
import pytest
import torch

from monai_effsam.engines.prompting import simulate_prompts

KNOWN = torch.tensor([[True, True]])


def label_of(*boxes, side=32, targets=2, target=1):
    label = torch.zeros(1, targets, side, side)
    for x0, y0, x1, y1 in boxes:
        label[0, target, y0:y1, x0:x1] = 1
    return label


def simulated(label, known=KNOWN, count=40, jitter=0.0):
    return [simulate_prompts(label, known, np.random.RandomState(i), jitter=jitter) for i in range(count)]


def test_all_three_kinds_of_prompts_occur_and_always_some():
    kinds = {(p.points is not None, p.boxes is not None) for p in simulated(label_of((3, 4, 10, 9)))}
    assert kinds == {(True, False), (False, True), (True, True)}


def test_box_without_jitter_is_the_objects():
    boxes = [p.boxes[0].tolist() for p in simulated(label_of((3, 4, 10, 9))) if p.boxes is not None]
    assert boxes
    assert all(box == [3, 4, 10, 9] for box in boxes)


def test_box_holds_the_piece_that_was_chosen_or_all_of_them():
    prompts = simulated(label_of((1, 1, 9, 9), (20, 22, 30, 25)))
    labels = {p.label.sum().item() for p in prompts if p.boxes is not None}
    boxes = {tuple(p.boxes[0].tolist()) for p in prompts if p.boxes is not None}
    assert labels == {64, 30, 94}
    assert boxes == {(1, 1, 9, 9), (20, 22, 30, 25), (1, 1, 30, 25)}


def test_points_mean_one_piece():
    prompts = [p for p in simulated(label_of((1, 1, 9, 9), (20, 22, 30, 25))) if p.points is not None]
    assert {p.label.sum().item() for p in prompts} == {64, 30}


def test_first_click_is_inside_and_second_outside():
    prompts = [p for p in simulated(label_of((3, 4, 10, 9), (20, 20, 21, 21))) if p.points is not None]
    found = {tuple(p.label[0, 0][int(y), int(x)].item() for x, y in p.points[0].tolist()) for p in prompts}
    assert found == {(1.0, 0.0)}
    assert all(p.labels.tolist() == [[1, 0]] for p in prompts)
    assert all((p.points % 1 == 0.5).all() for p in prompts)


def test_object_that_fills_the_frame_has_no_click_outside():
    prompts = [p for p in simulated(label_of((0, 0, 32, 32))) if p.points is not None]
    assert prompts
    assert all(p.labels.tolist() == [[1, -1]] for p in prompts)


def test_jitter_moves_sides_but_leaves_a_box_inside_the_frame():
    boxes = torch.cat(
        [p.boxes for p in simulated(label_of((0, 0, 32, 10)), jitter=0.2) if p.boxes is not None]
    )
    assert boxes.min() >= 0
    assert boxes.max() <= 32
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 1
    assert boxes.std(0).min() > 0.5


def test_target_is_one_that_is_there_and_known():
    label = torch.ones(1, 3, 8, 8)
    label[0, 1] = 0
    prompts = simulated(label, torch.tensor([[True, True, False]]))
    assert {int(p.target[0]) for p in prompts} == {0}


def test_rows_without_anything_are_not_valid():
    label = torch.cat([label_of((3, 4, 10, 9)), label_of()])
    prompts = simulated(label, KNOWN.expand(2, 2))
    assert all(p.valid.tolist() == [True, False] for p in prompts)
    assert not any(p.label[1].any() for p in prompts)
    assert all(p.labels[1].tolist() == [-1, -1] for p in prompts if p.labels is not None)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_randomness_gives_the_same_prompts(seed):
    first, second = (
        simulate_prompts(label_of((3, 4, 10, 9), (20, 2, 25, 9)), KNOWN, np.random.RandomState(seed))
        for _ in range(2)
    )
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None]
    assert all(torch.equal(a, b) for a, b in pairs)
