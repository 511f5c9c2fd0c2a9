# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Spread, bootstrap and paired test."""

import numpy as np
import pytest

from monai_effsam.errors import ShapeError
from monai_effsam.metrics import (
    bootstrap_interval,
    holm,
    paired_difference,
    paired_p_value,
    spread_of,
    student_interval,
)


def test_spread_of_five_scores():
    spread = spread_of([0.0, 0.4, 0.5, 0.9, 1.0])
    assert (spread.n, spread.groups, spread.median, spread.below_half) == (5, 5, 0.5, 0.4)
    assert spread.mean == pytest.approx(0.56)
    assert spread.sd == pytest.approx(0.40373, abs=1e-5)
    assert spread.tenth == pytest.approx(0.16)
    assert 0.0 <= spread.low < spread.mean < spread.high <= 1.0


def test_no_scores_no_spread():
    assert spread_of([]) is None


def test_spread_becomes_short_json():
    spread = spread_of([1 / 3, 2 / 3], ["a", "a"])
    assert spread.to_json() == {
        "n": 2, "groups": 1, "mean": 0.5, "sd": 0.2357, "low": 0.5, "high": 0.5,
        "median": 0.5, "tenth": 0.3667, "below_half": 0.5,
    }  # fmt: skip


def test_interval_has_the_width_that_theory_gives():
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.002)
    assert high == pytest.approx(values.mean() + half, abs=0.002)


def test_interval_depends_on_the_seed_alone():
    values = [0.1, 0.7, 0.8, 0.9]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3, repeats=50) != bootstrap_interval(values, seed=4, repeats=50)


def test_copies_of_a_patients_slice_teach_nothing_new():
    values = [0.2, 0.6, 0.9]
    copies = [v for v in values for _ in range(10)]
    names = [name for name in "abc" for _ in range(10)]
    assert bootstrap_interval(copies, names) == pytest.approx(bootstrap_interval(values))
    low, high = bootstrap_interval(copies)
    assert high - low < 0.5 * np.subtract(*bootstrap_interval(values)[::-1])


def test_groups_of_unequal_size_are_weighted_by_their_items():
    low, high = bootstrap_interval([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], level=0.4)
    assert (low, high) == (0.75, 0.75)


def test_bootstrap_wants_one_group_a_value():
    with pytest.raises(ShapeError, match="2 values and 1 groups, expected one group a value"):
        bootstrap_interval([0.1, 0.2], ["a"])


def test_wilcoxon_on_paper():
    better = [0.1, 0.2, 0.3, 0.4, 0.5]
    worse = [0.09, 0.18, 0.27, 0.36, 0.45]
    assert paired_p_value(better, worse) == pytest.approx(2 / 2**5)  # all signs equal: one of 32, two sides
    assert paired_p_value(better, better) == 1.0


def test_a_difference_on_paper():
    found = paired_difference([0.9, 0.8, 0.7, 0.6], [0.8, 0.6, 0.4, 0.7])
    assert (found.n, found.groups, found.better, found.worse) == (4, 4, 3, 1)
    assert found.mean == pytest.approx((0.1 + 0.2 + 0.3 - 0.1) / 4)
    assert found.effect == pytest.approx(
        (1.5 + 3 + 4 - 1.5) / 10
    )  # both sizes of 0.1 share the ranks 1 and 2
    assert found.low <= found.mean <= found.high


def test_slices_of_one_patient_are_no_evidence_of_their_own():
    first, second = [0.9] * 20, [0.8] * 20
    alone = paired_difference(first, second)
    one = paired_difference(first, second, ["a"] * 20)
    assert alone.p_value < 1e-3
    assert (one.p_value, one.groups, one.n) == (1.0, 1, 20)  # one patient of one sign: chance does as much


def test_no_difference_is_none():
    found = paired_difference([0.5, 0.7], [0.5, 0.7])
    assert (found.mean, found.effect, found.p_value, found.better, found.worse) == (0, 0, 1, 0, 0)


def test_a_difference_becomes_short_json_with_its_small_p():
    found = paired_difference(
        np.linspace(0.5, 0.9, 40).tolist(), np.linspace(0.1, 0.4, 40).tolist()
    ).to_json()
    assert found["mean"] == 0.45
    assert 0 < found["p_value"] < 1e-6


def test_pairs_must_be_pairs():
    with pytest.raises(ShapeError, match="1 and 2 values"):
        paired_p_value([0.1], [0.1, 0.2])


def test_holm_on_paper():
    # in order .005 x 4, .01 x 3, .03 x 2, .04 x 1, of which the last must not be below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.4]) == [0.8, 0.8]
    assert holm([0.9, 0.8, 0.7]) == [1, 1, 1]
    assert holm([]) == []


def test_student_on_paper():
    mean, half = student_interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.30265 / 3**0.5, abs=1e-4))
    assert student_interval([5.0])[0] == 5.0
    assert np.isnan(student_interval([5.0])[1])
    with pytest.raises(ShapeError, match="no value"):
        student_interval([])
