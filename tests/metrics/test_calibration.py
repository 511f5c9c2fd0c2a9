# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Calibration error on paper."""

import pytest

from monai_effsam.errors import ShapeError
from monai_effsam.metrics import calibration_error, reliability

ROWS = {
    "sure and right": ([1.0, 0.0], [True, False], 0.0),
    "sure and wrong": ([1.0, 0.0], [False, True], 1.0),
    "right on average within a bin": ([0.52, 0.58, 0.5, 0.6 - 1e-9], [True, True, False, False], 0.05),
    "bins do not cancel each other": ([0.25, 0.75], [True, False], 0.75),
}


@pytest.mark.parametrize(("probabilities", "truths", "expected"), ROWS.values(), ids=ROWS)
def test_expected_calibration_error(probabilities, truths, expected):
    assert calibration_error(probabilities, truths) == pytest.approx(expected, abs=1e-6)


def test_one_truth_a_probability():
    with pytest.raises(ShapeError, match="1 probabilities and 2 truths"):
        calibration_error([0.5], [True, False])


def test_bins_tell_what_was_said_and_what_was_true():
    bins = reliability([0.12, 0.18, 0.95, 1.0], [0.0, 1.0, 1.0, 0.5])
    assert [(b.low, b.high, b.n) for b in bins] == [(0.1, 0.2, 2), (0.9, 1.0, 2)]
    assert [b.said for b in bins] == pytest.approx([0.15, 0.975])
    assert [b.true for b in bins] == pytest.approx([0.5, 0.75])


def test_the_error_is_that_of_the_bins_weighed_by_their_size():
    assert calibration_error([0.12, 0.18, 0.95], [0.0, 1.0, 0.5]) == pytest.approx((2 * 0.35 + 0.45) / 3)
