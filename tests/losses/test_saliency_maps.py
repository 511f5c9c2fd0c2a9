# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Saliency maps against values that can be worked out by hand, or by another route."""

import pytest
import torch

from monai_effsam.errors import ShapeError
from monai_effsam.losses.saliency_maps import (
    activation_map,
    attention_rollout,
    grad_cam,
    input_gradient,
    token_attention,
)
from monai_effsam.networks.foreign import import_segment_anything


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_activation_is_the_mean_power_of_the_channels():
    features = torch.tensor([[[[1.0]], [[-3.0]]]])
    assert activation_map(features).tolist() == [[[5.0]]]
    assert activation_map(features, 1).tolist() == [[[2.0]]]


def test_activation_is_blind_behind_a_layer_norm():
    features = noise(1, 64, 8, 8)
    normed = torch.nn.functional.layer_norm(features.permute(0, 2, 3, 1), (64,)).permute(0, 3, 1, 2)
    spread = [float(activation_map(x).std() / activation_map(x).mean()) for x in (features, normed)]
    assert spread[0] > 0.1
    assert spread[1] < 1e-3


def test_grad_cam_of_a_linear_score():
    features = noise(2, 3, 4, 4).requires_grad_()
    weight = torch.tensor([1.0, -2.0, 0.5])
    score = torch.einsum("c,bchw->b", weight, features)  # dy / dF_c = w_c everywhere
    expected = torch.einsum("c,bchw->bhw", weight, features).relu()
    torch.testing.assert_close(grad_cam(score, features), expected.detach())


def test_grad_cam_can_train_a_student():
    parameter = noise(3).requires_grad_()
    features = noise(1, 3, 4, 4).requires_grad_()
    score = (parameter.view(1, 3, 1, 1) * features).square().sum()
    assert not grad_cam(score, features).requires_grad
    grad_cam(score, features, differentiable=True).sum().backward()
    assert parameter.grad.abs().sum() > 0


def test_input_gradient_is_the_steepest_channel():
    image = noise(1, 2, 3, 3).requires_grad_()
    score = (image * torch.tensor([2.0, -5.0]).view(1, 2, 1, 1)).sum()
    torch.testing.assert_close(input_gradient(score, image), torch.full((1, 3, 3), 5.0))


def test_rollout_is_the_mean_row_of_the_product():
    layers = [noise(2, 3, 6, 6, seed=s).softmax(-1) for s in range(3)]
    whole = torch.eye(6).expand(2, 6, 6)
    for attention in layers:
        whole = (0.5 * (attention.mean(1) + torch.eye(6))) @ whole
    torch.testing.assert_close(attention_rollout(layers, (2, 3)), whole.mean(1).reshape(2, 2, 3))
    with pytest.raises(ShapeError, match="6 positions, expected 3 x 3"):
        attention_rollout(layers, (3, 3))


def test_token_attention_weighs_values_as_segment_anything_does():
    torch.manual_seed(0)
    layer = import_segment_anything().modeling.transformer.Attention(32, 8, downsample_rate=2)
    token, image = noise(2, 1, 32), noise(2, 12, 32, seed=1)
    weight = token_attention(layer.q_proj(token)[:, 0], layer.k_proj(image), (3, 4), heads=1)
    assert torch.allclose(weight.sum((1, 2)), torch.ones(2))
    # with one head, its weights on the values must give what the layer gives
    layer.num_heads = 1
    expected = layer(q=token, k=image, v=image)
    found = layer.out_proj(weight.reshape(2, 1, 12) @ layer.v_proj(image))
    torch.testing.assert_close(found, expected)
    with pytest.raises(ShapeError, match="expected"):
        token_attention(token[:, 0], image, (3, 4), heads=5)
