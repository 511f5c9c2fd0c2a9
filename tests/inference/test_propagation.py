# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""An object followed through slices: its extent, its ends, several prompts, what makes it stop."""

import numpy as np
import pytest

from monai_effsam.inference.propagation import PropagationRule, SliceOutline, next_prompt, propagate
from monai_effsam.specs import Prompts

SIDE, COUNT = 60, 20


def ball(centre=(10.0, 30.0, 30.0), radii=(6.0, 15.0, 15.0)) -> np.ndarray:
    grid = np.stack(np.meshgrid(np.arange(COUNT), np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1)
    return (((grid - centre) / radii) ** 2).sum(-1) < 1


class Outlines:
    """What a perfect model says of an object: its part in the box."""

    def __init__(self, truth: np.ndarray, quality=0.9) -> None:
        self.truth, self.quality, self.asked = truth, quality, []
        self.pictures = np.where(truth, 200, 20).astype(np.uint8)

    def __call__(self, index: int, prompts: Prompts) -> SliceOutline:
        self.asked.append(index)
        x0, y0, x1, y1 = (round(v) for v in prompts.box)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[y0:y1, x0:x1] = self.truth[index, y0:y1, x0:x1]
        return SliceOutline(mask, self.quality)

    def follow(self, *prompted: int, slices: range = range(COUNT), **rule) -> dict[int, SliceOutline]:
        seeds = {index: SliceOutline(self.truth[index], 1.0) for index in prompted}
        return propagate(seeds, self, lambda index: self.pictures[index], slices, PropagationRule(**rule))


def test_an_object_is_followed_both_ways_to_its_ends_and_no_further():
    model = Outlines(ball())
    found = model.follow(10)
    shown = np.flatnonzero(ball().any(axis=(1, 2)))
    assert sorted(found) == shown.tolist()
    assert all((found[i].mask == model.truth[i]).mean() > 0.99 for i in found)
    assert sorted(set(model.asked)) == [4, *(i for i in shown if i != 10), 16]  # one look past each end


def test_a_region_bounds_the_slices():
    assert sorted(Outlines(ball()).follow(10, slices=range(9, 13))) == [9, 10, 11, 12]


def test_a_prompt_on_the_first_and_on_the_last_slice():
    truth = np.ones((COUNT, SIDE, SIDE), bool)
    assert sorted(Outlines(truth).follow(0)) == list(range(COUNT))
    assert sorted(Outlines(truth).follow(COUNT - 1)) == list(range(COUNT))


def test_between_two_prompts_each_slice_is_asked_once_from_the_nearer():
    model = Outlines(ball())
    model.follow(7, 12)
    between = [index for index in model.asked if 7 < index < 12]
    assert sorted(between) == [8, 9, 10, 11]


def test_an_empty_prompted_slice_stays_and_is_not_followed():
    model = Outlines(ball())
    found = model.follow(0)
    assert sorted(found) == [0]
    assert model.asked == []


@pytest.mark.parametrize(
    ("what", "rule"),
    [
        ("doubt", {}),
        ("absence", {}),
        ("leap", {}),
        ("burst", {}),
        ("brightness", {}),
        ("remnant", {"area": 0.2}),
    ],
)
def test_it_stops_where_the_object_is_lost(what, rule):
    model = Outlines(np.repeat(ball()[10:11], COUNT, axis=0))
    lost = SliceOutline(model.truth[12].copy(), 0.9)
    if what == "doubt":
        lost = lost._replace(quality=0.1)
    elif what == "absence":
        lost = lost._replace(presence=0.2)
    elif what == "leap":
        lost = lost._replace(mask=np.roll(model.truth[12], 26, axis=1))
        model.pictures[12] = 200
    elif what == "burst":
        lost = lost._replace(mask=np.ones((SIDE, SIDE), bool))
        model.pictures[12] = 200
    elif what == "brightness":
        model.pictures[12] = 90
    elif what == "remnant":
        lost.mask[:, :31] = False
        lost.mask[:30] = False
        lost.mask[:, 36:] = False

    def outline(index, prompts):
        return lost if index == 12 else model(index, prompts)

    seeds = {10: SliceOutline(model.truth[10], 1.0)}
    found = propagate(seeds, outline, lambda i: model.pictures[i], range(COUNT), PropagationRule(**rule))
    assert sorted(found) == list(range(12))


def test_the_next_prompt_is_the_box():
    mask = np.zeros((40, 50), bool)
    mask[10:21, 20:41] = True
    prompts = next_prompt(mask)
    assert prompts.box == (20, 10, 41, 21)
    assert prompts.points == ()
    prompts = next_prompt(mask, margin=0.5)
    assert prompts.box == (9.5, 0.0, 50, 31.5)  # cut to the picture
    prompts.check_inside(mask.shape)
