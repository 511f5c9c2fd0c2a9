# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The channel norm against segment-anything's."""

import pytest
import torch

from monai_effsam.networks.foreign import import_segment_anything
from monai_effsam.networks.layers import LayerNorm2d


@pytest.fixture(scope="module")
def pair():
    """Ours and segment-anything's, with the same random weights."""
    reference = import_segment_anything().modeling.common.LayerNorm2d(6).double()
    torch.manual_seed(0)
    torch.nn.init.normal_(reference.weight)
    torch.nn.init.normal_(reference.bias)
    ours = LayerNorm2d(6).double()
    ours.load_state_dict(reference.state_dict())
    return ours, reference


@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (1, 6, 1, 1)])
def test_equals_segment_anything(pair, shape):
    ours, reference = pair
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(x), reference(x))


def test_keeps_channels_last_order():
    x = torch.randn(2, 6, 5, 7).to(memory_format=torch.channels_last)
    assert LayerNorm2d(6)(x).is_contiguous(memory_format=torch.channels_last)
