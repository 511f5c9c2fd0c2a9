# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Operations of a searched network: shapes, closed forms of their cost, what folding and exports rely on."""

import copy

import pytest
import torch
from torch.nn import functional as F

from monai_effsam.errors import SpecError, UnknownNameError
from monai_effsam.metrics.complexity import count_macs, count_parameters
from monai_effsam.networks.blocks.operations import (
    OPERATIONS,
    SKIP,
    AttentionOperation,
    ComputeCost,
    LinearAttention,
    Operation,
    build_operation,
    find_operation,
    register_operation,
)
from monai_effsam.networks.encoders import fold_batch_norm


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(name, channels=32):
    """With norms whose statistics are not those of a fresh one."""
    torch.manual_seed(1)
    module = build_operation(name, channels)
    for norm in (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    return module.eval().requires_grad_(False)


@pytest.fixture(params=sorted(OPERATIONS))
def name(request):
    return request.param


def test_operations_keep_the_shape_and_images_apart(name):
    module, x = built(name), noise(2, 32, 6, 10)
    found = module(x)
    assert found.shape == x.shape
    torch.testing.assert_close(module(x[1:]), found[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "height", "width"), [(16, 8, 8), (48, 12, 20)])
def test_closed_forms_are_what_the_network_has(name, channels, height, width):
    module = build_operation(name, channels).eval()
    found = find_operation(name).cost(channels, height, width)
    macs = count_macs(lambda: module(torch.zeros(1, channels, height, width)))
    if name == "msa_conv_k3":  # its products are sums of maps for such narrow heads, which no counter sees
        macs += 2 * 9 * channels * height * width
    assert found == ComputeCost(macs, count_parameters(module))


def test_folding_leaves_the_function_and_no_norm(name):
    module, x = built(name), noise(1, 32, 9, 9)
    folded = fold_batch_norm(copy.deepcopy(module))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(x), module(x), rtol=1e-4, atol=1e-4)


def test_every_operation_but_skip_does_something(name):
    x = noise(1, 32, 8, 8)
    assert torch.equal(built(name)(x), x) == (name == SKIP)


@pytest.mark.parametrize(("name", "reach"), [("dwsep_k7", 3), ("dilated_k5_d2", 4), ("mbconv_k5_e2", 2)])
def test_convolutions_reach_as_far_as_they_say(name, reach):
    module = built(name, 16)
    x = noise(1, 16, 15, 15).requires_grad_(True)
    module(x)[0, :, 7, 7].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
    assert rows[0] == 7 - reach
    assert rows[-1] == 7 + reach


def test_linear_attention_is_the_quadratic_form():
    module, x = LinearAttention(32).eval(), noise(2, 32, 5, 7)
    q, k, v = module.qkv(x).reshape(2, 3, 2, 16, 35).unbind(1)
    weights = F.relu(q).transpose(2, 3) @ F.relu(k) / 35
    weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
    attended = (v @ weights.transpose(2, 3)).reshape(2, 32, 5, 7)
    torch.testing.assert_close(module(x), x + module.projection(attended), rtol=1e-4, atol=1e-5)


def test_windows_that_cover_the_map_are_global_attention():
    module, x = AttentionOperation(32, 8).eval(), noise(1, 32, 8, 8)
    whole = AttentionOperation(32).eval()
    whole.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(x), whole(x))
    assert not torch.allclose(module(noise(1, 32, 8, 16)), whole(noise(1, 32, 8, 16)), atol=1e-3)


def test_windows_do_not_see_each_other_and_stay_in_place():
    module, x = AttentionOperation(32, 8).eval(), noise(1, 32, 16, 24)
    torch.testing.assert_close(module(x)[:, :, 8:, 8:16], module(x[:, :, 8:, 8:16]), rtol=1e-4, atol=1e-5)
    padded = module(x[:, :, :13, :21])
    torch.testing.assert_close(padded[:, :, :8, :16], module(x)[:, :, :8, :16], rtol=1e-4, atol=1e-5)


def test_only_attention_is_for_reference():
    found = {operation.name for operation in OPERATIONS.values() if operation.reference}
    assert found == {"window_attention_w8", "global_attention"}


def test_unknown_names_and_widths_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'dwsep_k"):
        build_operation("dwsep_k2", 32)
    with pytest.raises(SpecError, match="'grouped_k3': channels are 24, expected a positive multiple of 16"):
        build_operation("grouped_k3", 24)
    with pytest.raises(SpecError, match="'dwsep_k3': channels are 20, expected a positive multiple of 8"):
        build_operation("dwsep_k3", 20)


def test_a_name_is_registered_once():
    with pytest.raises(SpecError, match="is registered already"):
        register_operation(Operation(SKIP, torch.nn.Identity, lambda *_: ComputeCost()))
