# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Cyclic shift: where each group of heads looks, and that it follows the size of the map."""

import pytest
import torch

from monai_effsam.errors import SpecError
from monai_effsam.networks.layers import AttentionWindow, CyclicShift, local_attention
from monai_effsam.networks.layers.cyclic_shift import SHIFT_DIRECTIONS


@pytest.mark.parametrize("shape", [(7, 9), (20, 6), (1, 2), (1, 1)])
@pytest.mark.parametrize("step", [0, 1, 4, 100])
def test_each_direction_is_a_roll(noise, shape, step):
    x = noise(2, 10, *shape)
    moved = CyclicShift(5, step)(x)
    amount = [min(step, side // 2) for side in shape]
    for number, direction in enumerate(SHIFT_DIRECTIONS):
        by = [d * a for d, a in zip(direction, amount, strict=True)]
        part = slice(2 * number, 2 * number + 2)
        assert torch.equal(moved[:, part], x[:, part].roll(by, (2, 3)))


def test_without_wrapping_zeros_come_in(noise):
    x = noise(1, 5, 6, 8).abs() + 1
    moved, wrapped = CyclicShift(5, 2, wrap=False)(x), CyclicShift(5, 2)(x)
    assert torch.equal(moved[:, 0], x[:, 0])
    for number, (lines, kept) in enumerate(
        [((..., slice(0, 2)), (..., slice(2, None))), ((slice(0, 2),), (slice(2, None),)),
         ((..., slice(-2, None)), (..., slice(None, -2))), ((slice(-2, None),), (slice(None, -2),))], start=1
    ):  # fmt: skip
        assert not moved[0, number][lines].any()
        assert torch.equal(moved[0, number][kept], wrapped[0, number][kept])


@pytest.mark.parametrize(
    ("heads", "groups"),
    [(1, [1]), (2, [1, 1]), (4, [1, 1, 1, 1]), (5, [1] * 5), (8, [2, 2, 1, 2, 1]), (16, [4, 3, 3, 3, 3])],
)
def test_heads_are_shared_out(heads, groups):
    assert [count for _, count in CyclicShift(heads, 3).groups] == groups
    assert CyclicShift(heads, 3).groups[0][0] == (0, 0)


def test_query_sees_the_window_so_far_away(noise):
    q, k = noise(1, 2, 14, 14), noise(1, 2, 14, 14)
    v = noise(1, 2, 14, 14).requires_grad_()
    shift = CyclicShift(2, 4)
    shift.groups = (((1, 0), 2),)  # all heads four rows down
    out = local_attention(q, shift(k), shift(v), AttentionWindow(), heads=2)
    (grad,) = torch.autograd.grad(out[0, :, 7, 7].sum(), v)
    rows, columns = grad[0].abs().sum(0).nonzero().unbind(1)
    assert (sorted(set(rows.tolist())), sorted(set(columns.tolist()))) == ([2, 3, 4], [6, 7, 8])


@pytest.mark.parametrize(("size", "unchanged"), [(3, 100), (5, 49)])
def test_shift_of_the_whole_map_would_change_borders_only(noise, size, unchanged):
    maps, window = [noise(1, 4, 14, 14) for _ in range(3)], AttentionWindow((size, size))
    there = local_attention(*(x.roll((3, 3), (2, 3)) for x in maps), window).roll((-3, -3), (2, 3))
    same = (there - local_attention(*maps, window)).abs().amax((0, 1)) < 1e-12
    assert int(same.sum()) == unchanged


def test_impossible_shifts_are_refused():
    for heads, step in ((0, 1), (1, -1)):
        with pytest.raises(SpecError, match="Leave the shift out"):
            CyclicShift(heads, step)
