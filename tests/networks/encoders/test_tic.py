# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The trunk of TiC networks and the encoder made of it (the contract of encoders: tests/contracts)."""

import pytest
import torch
from torch import nn

from monai_effsam.errors import ShapeError, SpecError, UnknownNameError
from monai_effsam.networks.encoders import TicSize, TicTrunk, build_encoder

SMALL = TicSize((8, 16, 24, 32), (2, 2, 3, 1), 8)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(1, 1), (33, 57), (160, 96), (130, 131)])
@pytest.mark.parametrize("last_stride", [1, 2])
@torch.no_grad()
def test_any_image_will_do(size, last_stride):
    trunk = TicTrunk(SMALL, 1, last_stride=last_stride).eval()
    maps = trunk(noise(1, 1, *size))
    assert trunk.strides == (4, 8, 16, 16 * last_stride)
    assert [m.shape for m in maps] == [
        (1, c, *(-(-side // s) for side in size)) for c, s in zip(trunk.channels, trunk.strides, strict=True)
    ]
    assert all(m.isfinite().all() for m in maps)


def test_windows_take_turns_and_each_mechanism_has_its_switch():
    def layout(**options):
        return [
            [(b.attention.window.dilation[0], b.attention.shift and b.attention.shift.step,
              b.attention.inter_pool and b.attention.inter_pool.cell) for b in stage]
            for stage in TicTrunk(SMALL, **options).stages
        ]  # fmt: skip

    assert layout() == [[(1, None, None), (3, 3, 3)]] * 2 + [
        [(1, None, None), (2, 3, None), (3, None, 3)], [(1, None, None)]
    ]  # fmt: skip
    plain = [[(1, None, None), (2, None, None)]] * 2 + [
        [(1, None, None), (2, None, None), (1, None, None)],
        [(1, None, None)],
    ]
    assert layout(shift=False, inter_pooling=False) == plain
    assert layout(kernel_size=5)[2][1] == (2, 5, None)


def test_switches_change_the_answer_and_no_parameter():
    torch.manual_seed(0)
    trunk = TicTrunk(SMALL).eval()
    for options in ({"shift": False}, {"inter_pooling": False}, {"kernel_size": 5}):
        other = TicTrunk(SMALL, **options).eval()
        other.load_state_dict(trunk.state_dict())
        assert (other(noise(1, 3, 64, 64))[-1] - trunk(noise(1, 3, 64, 64))[-1]).abs().max() > 1e-6


@torch.no_grad()
def test_maps_move_with_the_image_away_from_its_border():
    torch.manual_seed(0)
    trunk = TicTrunk(SMALL, shift=False).double().eval()
    image = torch.zeros(1, 3, 320, 320, dtype=torch.float64)
    image[..., 96:160, 96:160] = noise(1, 3, 64, 64)
    here, there = trunk(image)[1], trunk(image.roll((32, 64), (2, 3)))[1]
    inner = (
        ...,
        slice(14, 30),
        slice(18, 30),
    )  # of 40 x 40; borders, and where they rolled to, reach 10 further in
    assert here.roll((4, 8), (2, 3))[inner].std() > 0.01
    torch.testing.assert_close(there[inner], here.roll((4, 8), (2, 3))[inner])


def test_trunks_that_cannot_be_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'nano'"):
        TicTrunk("nanno")
    with pytest.raises(SpecError, match="expected even multiples of 32"):
        TicSize((32, 48, 64, 96), (1, 1, 1, 1))
    with pytest.raises(SpecError, match="last_stride is 4"):
        TicTrunk(SMALL, last_stride=4)
    with pytest.raises(ShapeError, match=r"expected \(B, 3, H, W\)"):
        TicTrunk(SMALL)(torch.zeros(1, 1, 32, 32))
    with pytest.raises(SpecError, match="Give modalities=0"):
        build_encoder("tic", modalities=2)


def test_encoder_may_hold_its_norms():
    held, free = (
        build_encoder("tic", size="nano", embed_channels=8, train_norms=t).train() for t in (False, True)
    )
    states = [{m.training for m in e.modules() if isinstance(m, nn.BatchNorm2d)} for e in (held, free)]
    assert states == [{False}, {True}]
