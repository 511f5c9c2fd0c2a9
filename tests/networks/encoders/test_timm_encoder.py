# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Folding of BatchNorm, and the controllers around a timm trunk (the contract itself: tests/contracts)."""

import pytest
import torch
from torch import nn

from monai_effsam.errors import SpecError
from monai_effsam.networks.blocks.modality_attention import ModalityAttentionBlock
from monai_effsam.networks.blocks.modality_experts import ModalityExperts
from monai_effsam.networks.encoders.timm_encoder import TimmEncoder, fold_batch_norm
from monai_effsam.networks.foreign import import_timm

SMALL = {"embed_channels": 32, "heads": 2}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shake_norms(module):
    """Give every BatchNorm statistics and weights of its own."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.5, 0.5),
                (norm.running_var, 0.5, 2.0),
                (norm.weight.data, 0.5, 1.5),
                (norm.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=generator)
    return module


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    "model",
    ["mobilenetv3_small_050", "tf_efficientnet_lite0", "mobilenetv2_035", "resnet10t", "squeezenet_like"],
)
@torch.no_grad()
def test_folding_keeps_the_function(model):
    if model == "squeezenet_like":  # convolutions with a bias before their norm
        trunk = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4)
        )
        for conv in (trunk[0], trunk[3]):
            conv.bias.copy_(noise(len(conv.bias)))
    else:
        trunk = import_timm().create_model(model, features_only=True, pretrained=False)
    shake_norms(trunk).eval()
    image = noise(1, 3, 64, 64)
    want = trunk(image)
    assert norms(trunk)
    found = fold_batch_norm(trunk)(image)
    assert norms(trunk) == []
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3 * max(float(w.abs().max()) for w in want))


@torch.no_grad()
def test_folded_network_is_one_function_in_training_and_inference():
    trunk = fold_batch_norm(import_timm().create_model("resnet10t", features_only=True, pretrained=False))
    image = noise(2, 3, 64, 64)
    for a, b in zip(trunk.train()(image), trunk.eval()(image), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)],
        [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(5)],
        [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)],
    ],
    ids=["no convolution before", "another width", "convolution has a norm already"],
)
def test_norms_without_a_convolution_of_their_own_are_refused(layers):
    with pytest.raises(SpecError, match="Build with fold=False"):
        fold_batch_norm(nn.Sequential(*layers))


def test_trunk_may_be_loaded_before_it_is_folded():
    encoder = TimmEncoder("mobilenetv3_small_050", 1, **SMALL, fold=False)
    assert norms(encoder.trunk)
    assert norms(TimmEncoder("mobilenetv3_small_050", 1, **SMALL)) == []


def test_skips_are_those_asked_for():
    encoder = TimmEncoder("mobilenetv3_small_050", 1, **SMALL, skips=(4,)).eval()
    (skip,) = encoder(noise(1, 3, 64, 32), torch.tensor([0])).skips
    assert skip.shape == (1, encoder.skip_channels[0], 16, 8)


def test_network_without_the_strides_is_refused():
    with pytest.raises(SpecError, match="Choose another network"):
        TimmEncoder("convnext_atto", 1)


# The parts around the trunk


@torch.no_grad()
def test_fresh_experts_leave_the_features_alone():
    x = noise(3, 4, 16)
    assert not ModalityExperts(16, 2)(x, torch.tensor([0, 1, 0])).any()
    assert ModalityExperts(16, 2, release_init=True)(x, torch.tensor([0, 1, 0])).any()


@torch.no_grad()
def test_each_row_meets_its_own_expert():
    experts = ModalityExperts(16, 3, release_init=True)
    x, modality = noise(4, 5, 16), torch.tensor([2, 0, 2, 1])
    want = torch.stack([experts.experts[m](row) for m, row in zip(modality.tolist(), x, strict=True)])
    torch.testing.assert_close(experts(x, modality), want)


def slow_block(block, x, modality):
    """One image, token by token and head by head."""
    x = x + block.position(x[None])[0]
    channels, height, width = x.shape
    tokens = x.flatten(1).T
    q, k, v = block.qkv(block.norm(tokens)).view(-1, 3, block.heads, channels // block.heads).unbind(1)
    rows = []
    for i in range(len(tokens)):
        heads = []
        for g in range(block.heads):
            extra = block.token[modality, g]  # (1, d), key and value alike
            scores = torch.cat([k[:, g], extra]) @ q[i, g] / (channels // block.heads) ** 0.5
            scores[-1] += block.token_bias[modality]
            heads.append(scores.softmax(0) @ torch.cat([v[:, g], extra]))
        rows.append(torch.cat(heads))
    tokens = tokens + block.proj(torch.stack(rows))
    tokens = tokens + block.mlp(tokens) + block.experts.experts[modality](tokens)
    return tokens.T.view(channels, height, width)


@torch.no_grad()
def test_attention_block_equals_the_slow_one():
    torch.manual_seed(0)
    block = ModalityAttentionBlock(8, 3, heads=2).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x, modality = noise(2, 8, 3, 4).double(), torch.tensor([2, 0])
    want = torch.stack([slow_block(block, one, int(m)) for one, m in zip(x, modality, strict=True)])
    torch.testing.assert_close(block(x, modality), want)


def test_channels_that_heads_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"expected a multiple of heads 3\. Choose another number"):
        ModalityAttentionBlock(8, 1, heads=3)


@torch.no_grad()
def test_without_modalities_it_is_the_encoder_with_a_silenced_controller():
    torch.manual_seed(0)
    steered = TimmEncoder("mobilenetv3_small_050", 1, **SMALL).eval()  # fresh experts answer 0
    steered.attention.token_bias.fill_(-1e9)
    plain = TimmEncoder("mobilenetv3_small_050", 0, **SMALL).eval()
    shared = {k: v for k, v in steered.state_dict().items() if k in plain.state_dict() and "token" not in k}
    assert plain.state_dict().keys() - shared.keys() == {"attention.token", "attention.token_bias"}  # empty
    plain.load_state_dict(shared, strict=False)
    found, expected = (
        plain(noise(1, 3, 64, 96), torch.tensor([5])),
        steered(noise(1, 3, 64, 96), torch.tensor([0])),
    )
    for mine, other in zip(
        (found.embedding, *found.skips), (expected.embedding, *expected.skips), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
