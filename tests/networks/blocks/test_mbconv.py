# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""TinyViT's convolutional parts, written out layer by layer."""

import pytest
import torch
from torch.nn import functional as F

from monai_effsam.networks.blocks import ConvNorm, InvertedResidualBlock, MapMerging


def randomised(module):
    """The module in float64 and eval mode, with every weight and statistic at random."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.double().state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else noise)
    return module.eval().requires_grad_(False)


def written_out(layer, x, stride=1, groups=1):
    """Zero-padded convolution without bias, then (x - mean) / sqrt(var + 1e-5) * weight + bias."""
    x = F.conv2d(x, layer.c.weight, None, stride, layer.c.weight.shape[-1] // 2, groups=groups)
    mean, var, weight, bias = (
        t.view(-1, 1, 1)
        for t in (layer.bn.running_mean, layer.bn.running_var, layer.bn.weight, layer.bn.bias)
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


@pytest.fixture
def x():
    return torch.randn(2, 4, 6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_convolution_has_no_bias_and_a_norm(x):
    layer = randomised(ConvNorm(4, 6, 3, 2))
    assert layer.c.bias is None
    torch.testing.assert_close(layer(x), written_out(layer, x, stride=2))


def test_inverted_residual_block_ends_with_a_gelu_of_the_sum(x):
    block = randomised(InvertedResidualBlock(4, expand_ratio=3))
    hidden = F.gelu(written_out(block.conv1, x))
    hidden = F.gelu(written_out(block.conv2, hidden, groups=12))
    torch.testing.assert_close(block(x), F.gelu(x + written_out(block.conv3, hidden)))


def test_fresh_inverted_residual_block_is_a_gelu(x):
    block = InvertedResidualBlock(4).double()
    torch.testing.assert_close(block(x), F.gelu(x))


@pytest.mark.parametrize(("stride", "size"), [(2, (3, 5)), (1, (6, 10))])
def test_merging_strides_in_its_depthwise_convolution(x, stride, size):
    merging = randomised(MapMerging(4, 8, stride))
    hidden = F.gelu(written_out(merging.conv1, x))
    hidden = F.gelu(written_out(merging.conv2, hidden, stride, groups=8))
    out = merging(x)
    assert out.shape == (2, 8, *size)
    torch.testing.assert_close(out, written_out(merging.conv3, hidden))
