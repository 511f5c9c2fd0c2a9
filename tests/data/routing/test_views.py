# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Views of the modality router: made again from the same draws, and different in the respect that is drawn."""

from dataclasses import fields, replace

import numpy as np
import pytest

from monai_effsam.data.routing.frames import SHAPES, framed
from monai_effsam.data.routing.views import ViewChances, is_grey, routing_view

NOTHING = ViewChances(**{field.name: 0.0 for field in fields(ViewChances)})


@pytest.fixture
def picture():
    y, x = np.mgrid[0:120, 0:160]
    return np.stack([x, y, 255 - x], -1).astype(np.uint8)


def view(picture, seed=0, size=48, **chances):
    return routing_view(picture, np.random.RandomState(seed), size, replace(NOTHING, **chances))


def test_a_view_has_the_size_asked_for_and_is_made_again(picture):
    first, again = (routing_view(picture, np.random.RandomState(3), 48) for _ in range(2))
    assert first.shape == (48, 48, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, routing_view(picture, np.random.RandomState(4), 48))


def test_without_any_chance_only_the_aspect_changes(picture):
    made = view(picture).astype(int)
    assert np.all(np.diff(made[24, :, 0]) >= 0)
    assert np.all(np.diff(made[:, 24, 1]) >= 0)


def test_a_flip_mirrors_left_and_right(picture):
    made = view(picture, flip=1.0).astype(int)
    assert np.all(np.diff(made[24, :, 0]) <= 0)


@pytest.mark.parametrize(
    "name",
    [
        "crop",
        "deep",
        "turn",
        "border",
        "coarse",
        "tone",
        "tint",
        "squeeze",
        "grain",
        "blur",
        "marks",
        "frame",
    ],
)
def test_each_chance_changes_the_picture(picture, name):
    changed = [
        not np.array_equal(view(picture, seed), view(picture, seed, **{name: 1.0})) for seed in range(6)
    ]
    assert any(changed)


def test_grey_takes_the_colours_and_a_tint_gives_some(picture):
    assert not is_grey(view(picture))
    assert is_grey(view(picture, grey=1.0))
    grey = np.repeat(picture[..., :1], 3, axis=2)
    assert any(not is_grey(view(grey, seed, tint=1.0)) for seed in range(6))


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (9, 8)])
def test_pictures_of_any_size_give_views(size):
    picture = np.full((*size, 3), 128, np.uint8)
    every = ViewChances(**{field.name: 1.0 for field in fields(ViewChances)})
    for seed in range(4):
        assert routing_view(picture, np.random.RandomState(seed), 32, every).shape == (32, 32, 3)


def test_a_negative_is_of_grey_pictures_alone(picture):
    grey = np.repeat(picture[..., :1], 3, axis=2)
    assert np.abs(view(grey, negative=1.0) - (255.0 - view(grey))).max() <= 1
    assert np.array_equal(view(picture, negative=1.0), view(picture))


def test_another_contrast_is_of_mr_alone_and_leaves_black(picture):
    black = np.zeros_like(picture)
    for seed in range(6):
        random = [np.random.RandomState(seed) for _ in range(3)]
        chances = replace(NOTHING, contrast=1.0)
        assert not routing_view(black, random[0], 48, chances, "mr").any()
        ct = routing_view(picture, random[1], 48, chances, "ct")
        assert np.array_equal(ct, view(picture, seed))
        assert not np.array_equal(routing_view(picture, random[2], 48, chances, "mr"), ct)


def test_a_deep_view_shows_little_and_never_nothing(picture):
    spread = [np.ptp(view(picture, seed, deep=1.0)[..., 0]) for seed in range(20)]
    assert max(spread) < 0.75 * 159  # the picture's red counts its columns
    half = picture.copy()
    half[:, 40:] = 0
    shown = [view(half, seed, deep=1.0).std() > 5 for seed in range(30)]
    assert all(shown)


def test_long_pictures_are_not_pressed_into_a_square():
    long = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (20, 1, 3))
    spread = [np.ptp(view(long, seed)[..., 0]) for seed in range(5)]
    assert max(spread) <= 40


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_leaves_the_picture_inside_and_takes_it_outside(name):
    for seed in range(20):
        mask = SHAPES[name](90, 120, np.random.RandomState(seed))
        assert mask.shape == (90, 120)
        assert set(np.unique(mask)) <= {0, 255}
        assert 0.1 < (mask > 0).mean() < 0.98


def test_a_framed_picture_is_itself_inside():
    picture = np.full((80, 80, 3), 128, np.uint8)
    made = [framed(picture, np.random.RandomState(seed)) for seed in range(20)]
    assert all((one == 128).mean() > 0.1 for one in made)
    assert np.mean([np.median(one[one < 100]) < 5 for one in made if (one < 100).any()]) > 0.6
