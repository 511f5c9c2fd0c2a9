# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A simulated user: boxes and clicks that a reader can redo, the same for every model."""

import zlib

import numpy as np
import pytest

from monai_effsam.errors import UsageError
from monai_effsam.evaluation.robot import RobotUser, jittered_box, next_click

LABEL = np.zeros((40, 60), bool)
LABEL[10:30, 20:50] = True


def box(user, name="a", label=LABEL):
    return jittered_box(label, user, user.random(name))


def click(answer, user=None):
    user = user or RobotUser("points", 1)
    return next_click(LABEL, answer, user, user.random("a"))


def test_a_box_without_jitter_frames_the_outermost_pixels():
    assert box(RobotUser("box", 0)) == (20, 10, 50, 30)


def test_sides_stray_by_the_jitter_at_1024_pixels():
    user = RobotUser("box", 0, jitter=100, seed=7)
    shifts = np.random.default_rng((7, 100, zlib.crc32(b"a"))).uniform(-1, 1, 4) * 100 * 60 / 1024
    assert box(user) == pytest.approx(np.array([20, 10, 50, 30]) + shifts)


def test_the_same_object_gets_the_same_box_and_others_another():
    user = RobotUser("box", 0, jitter=20)
    assert box(user) == box(RobotUser("box", 3, jitter=20))
    others = (
        box(user, "b"),
        box(RobotUser("box", 0, jitter=21)),
        box(RobotUser("box", 0, jitter=20, seed=1)),
    )
    assert box(user) not in others


@pytest.mark.parametrize("name", list("abcdefghijklmnopqrst"))
def test_a_strayed_box_is_a_box_inside_the_picture(name):
    dot = np.zeros((40, 60), bool)
    dot[0, 59] = True
    x0, y0, x1, y1 = box(RobotUser("box", 0, jitter=300), name, dot)
    assert 0 <= x0 <= x1 - 1 <= 59
    assert 0 <= y0 <= y1 - 1 <= 39


def test_the_first_click_is_at_the_deepest_pixel():
    (x, y), label = click(None)
    assert (y, label) == (19.5, 1)  # the rows in the middle are 19 and 20, the first counts
    assert 29 < x < 41  # deepest is every pixel that is farther from the ends than from top and bottom


def test_the_next_click_mends_the_largest_error():
    short = LABEL & (np.arange(60) < 40)  # the right third is missing
    (x, y), label = click(short)
    assert label == 1
    assert 40 < x < 50
    assert 10 < y < 30
    wide = LABEL.copy()
    wide[:8, :15] = True  # too much, by fewer pixels than are missing above
    assert click(wide & (np.arange(60) < 55))[1] == 0
    assert click(wide & short)[1] == 1


def test_who_has_nothing_to_mend_does_not_click():
    assert click(LABEL) is None


def test_clicks_stray_too_and_stay_inside():
    user = RobotUser("points", 1, jitter=1000)
    for name in "abcdefgh":
        (x, y), _ = next_click(LABEL, None, user, user.random(name))
        assert 0.5 <= x <= 59.5
        assert 0.5 <= y <= 39.5
    assert click(None, user)[0] != click(None)[0]


def test_rounds_have_names():
    assert RobotUser("points", 2).rounds == ("1 click", "2 clicks")
    assert RobotUser("box", 2).rounds == ("box", "box + 1 click", "box + 2 clicks")


@pytest.mark.parametrize(
    ("values", "said"),
    [(("points", 0), "at least 1"), (("box", -1), "at least 0"), (("box", 0, -1), "0 or more")],
)
def test_a_user_who_cannot_be_is_refused(values, said):
    with pytest.raises(UsageError, match=said):
        RobotUser(*values)
