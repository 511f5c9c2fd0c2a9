# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Grey values of any kind to 0..255."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monai_effsam.data.io.intensity import percentile_range, scale, to_uint8
from monai_effsam.errors import DataError

KINDS = st.sampled_from(["u1", "u2", "i2", "i4", "u4", "i8", "f4", "f8"])


def test_scale_is_linear_between_its_limits():
    assert scale(np.array([-5.0, 0, 25, 50, 100, 105]), 0, 100).tolist() == [0, 0, 64, 128, 255, 255]


def test_scale_of_a_flat_image_is_black():
    assert scale(np.full(3, 7.0), 7.0, 7.0).tolist() == [0, 0, 0]


def test_percentiles_pass_over_a_few_outliers():
    values = np.arange(1000.0)
    values[0], values[-1] = -1e9, 1e9
    assert percentile_range(values) == (5.0, 994.0)


def test_rare_foreground_is_not_clipped_away():
    values = np.zeros(10_000)
    values[7] = 3.0
    assert percentile_range(values) == (0.0, 3.0)


@given(hnp.arrays(KINDS, hnp.array_shapes(min_dims=2, max_dims=3, max_side=5)))
def test_any_numbers_give_an_8_bit_image_of_their_shape(values):
    before = values.copy()
    assume(np.isfinite(values).any())
    shown, notes = to_uint8(values)
    assert shown.dtype == np.uint8
    assert shown.shape == values.shape
    assert bool(notes) == (not np.isfinite(values).all())
    assert np.array_equal(before, values, equal_nan=values.dtype.kind == "f")


def test_no_finite_number_is_refused():
    with pytest.raises(DataError, match="all NaN or infinite, expected numbers"):
        to_uint8(np.array([np.nan, np.inf]))


@given(hnp.arrays(st.sampled_from(["u2", "i4", "f4", "f8"]), 20, elements=st.integers(0, 30000)))
def test_order_is_kept(values):
    shown = to_uint8(values)[0].astype(int)
    assert (np.diff(shown[np.argsort(values, kind="stable")]) >= 0).all()


@pytest.mark.parametrize(
    "values", [np.array([1e308, -1e308, 0.0]), np.array([5e-324, 0.0]), np.array([2**62, -(2**62)])]
)
def test_extreme_numbers_span_the_range(values):
    shown = to_uint8(values)[0]
    assert (shown.min(), shown.max()) == (0, 255)
