# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Parts of a TiC network: parameters by formula, the block by its parts, folded norms."""

import copy

import pytest
import torch
from torch import nn

from monai_effsam.networks.blocks import TicBlock, TicMerging, TicStem, fold_tic_norms


def size_of(module):
    return sum(p.numel() for p in module.parameters())


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shake_norms(module):
    """Statistics and weights of their own for every norm."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -1, 1),
                (norm.running_var, 0.5, 2),
                (norm.weight.data, 0.5, 2),
                (norm.bias.data, -1, 1),
            ):
                tensor.uniform_(low, high)
    return module


@pytest.mark.parametrize("width", [32, 96])
def test_sizes_follow_the_formulas(width):
    assert size_of(TicBlock(width, 2)) == 12 * width**2 + 13 * width
    assert size_of(TicBlock(width, 2, 7, dilation=2, shift=3, inter_pool=3)) == 12 * width**2 + 13 * width
    assert size_of(TicMerging(width, 64, 2)) == 3 * width**2 + 3 * width + 9 * width * 64
    assert size_of(TicStem(3, width)) == 27 * width // 2 + width + 9 * width**2 // 2 + 2 * width


@torch.no_grad()
def test_block_is_its_parts():
    block, x = shake_norms(TicBlock(8, 2, dilation=2)).eval(), noise(2, 8, 6, 7)
    attended = block.attention.projection(block.attention.attend(block.norm1(x)))
    y = x + attended
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)))


@torch.no_grad()
def test_folding_keeps_the_function_and_no_norm():
    parts = [TicStem(3, 16), TicBlock(16, 2, shift=2), TicBlock(16, 1, inter_pool=3), TicMerging(16, 24, 2)]
    network, x = shake_norms(nn.Sequential(*parts)).eval(), noise(2, 3, 37, 45)
    folded = fold_tic_norms(copy.deepcopy(network).train())
    assert not folded.training
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(x), network(x))
    torch.testing.assert_close(fold_tic_norms(folded)(x), network(x))  # twice is once
