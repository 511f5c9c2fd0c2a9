# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Inter-pooling: the mean of a cell, at every border, and what a window then covers."""

import pytest
import torch
import torch.nn.functional as F

from monai_effsam.errors import SpecError
from monai_effsam.networks.layers import InterPooling, MSAConv2d


def test_cell_of_one_changes_nothing(noise):
    x = noise(1, 4, 5, 6)
    assert InterPooling(1)(x) is x
    torch.manual_seed(0)
    plain = MSAConv2d(4, 4).double()
    torch.manual_seed(0)
    assert torch.equal(MSAConv2d(4, 4, inter_pool=1).double()(x), plain(x))


@pytest.mark.parametrize("cell", [3, 5])
def test_odd_cells_are_centred(noise, cell):
    x = noise(2, 4, 7, 8)
    for border, counted in (("zero", True), ("mask", False)):
        want = F.avg_pool2d(x, cell, 1, cell // 2, count_include_pad=counted)
        torch.testing.assert_close(InterPooling(cell, border)(x), want)


@pytest.mark.parametrize("cell", [2, 3, 4])
def test_circular_cells_go_round(noise, cell):
    x = noise(1, 2, 6, 7)
    steps = range(-((cell - 1) // 2), cell // 2 + 1)
    want = sum(x.roll((-i, -j), (2, 3)) for i in steps for j in steps) / cell**2
    torch.testing.assert_close(InterPooling(cell, "circular")(x), want)


def test_even_cell_by_hand():
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert InterPooling(2)(x).flatten().tolist() == [0.75, 1.25, 0.75]
    assert InterPooling(2, "mask")(x).flatten().tolist() == [1.5, 2.5, 3.0]


def test_window_covers_its_cells_without_gap(noise):
    layer = MSAConv2d(4, 4, inter_pool=3, projection="none", residual=False, act=None).double()
    x = noise(1, 4, 15, 15).requires_grad_()
    with torch.no_grad():
        layer.qkv.weight[:8].zero_()  # the same weight everywhere
    (grad,) = torch.autograd.grad(layer(x)[0, :, 7, 7].sum(), x)
    rows, columns = grad[0].abs().sum(0).nonzero().unbind(1)
    assert len(rows) == 81
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (3, 11, 3, 11)


def test_impossible_poolings_are_refused():
    for options in ((0,), (2, "reflect")):
        with pytest.raises(SpecError, match="Leave the pooling out"):
            InterPooling(*options)
