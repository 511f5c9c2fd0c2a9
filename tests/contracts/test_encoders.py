# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What every registered encoder keeps to, at a small size. A new encoder adds its row."""

import copy

import pytest
import torch

from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.networks.encoders import ENCODERS, build_encoder

SMALL = {
    "tiny_vit": {"release_init": True, "skips": True},
    "timm": {"model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2},
    "timm_sam_neck": {"model": "mobilenetv3_small_050", "embed_channels": 32},
    "timm_pyramid": {"model": "mobilenetv3_small_050", "embed_channels": 32},
    "tic": {"size": "nano", "embed_channels": 32, "skips": True},
    "searched": {
        "architecture": {
            "stages": [
                {"stride": 4, "width": 16, "ops": ["pool_mixer"]},
                {"stride": 8, "width": 32, "ops": ["mbconv_k3_e2", "linear_attention"]},
                {"stride": 16, "width": 32, "ops": ["msa_conv_k3", "dilated_k3_d2"]},
                {"stride": 32, "width": 48, "ops": ["grouped_k3"]},
            ],
            "decoder": {"width": 32},
        },
        "skips": (8, 4, 2),
    },
    "sam_vit": {"size": 64, "width": 32, "depth": 2, "heads": 2, "global_blocks": [1], "embed_channels": 32},
}
"""Name -> options of a small one, for pictures of 64 x 64."""

PLAIN = {"sam_vit", "tic", "timm_pyramid", "timm_sam_neck"}
"""Encoders without modality controllers: they read no index."""

MODALITY = torch.tensor([1, 0])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(name, seed=0):
    """Two modalities, every parameter of the controllers at random."""
    torch.manual_seed(seed)
    encoder = build_encoder(name, modalities=0 if name in PLAIN else 2, **SMALL[name]).eval()
    for key, parameter in encoder.named_parameters():
        if "experts" in key or key.endswith(("token_bias", "pos_embed", "rel_pos_h", "rel_pos_w")):
            torch.nn.init.normal_(parameter, std=0.2)
    return encoder


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def encoder(name):
    """Tests must not change it."""
    return build(name).requires_grad_(False)


@pytest.fixture(scope="module", params=sorted(ENCODERS.keys() - PLAIN))
def steered(request):
    """One that has controllers; tests must not change it."""
    return build(request.param).requires_grad_(False)


def maps(encoded):
    return (encoded.embedding, *encoded.skips)


def test_every_encoder_has_a_row():
    assert SMALL.keys() == ENCODERS.keys()


def test_unknown_encoder_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'tiny_vit'"):
        build_encoder("tinyvit")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 1)])
def test_maps_have_the_promised_shapes_at_any_size(encoder, height, width):
    height, width = height * encoder.size_divisor, width * encoder.size_divisor
    if encoder.fixed_size is not None:
        height = width = encoder.fixed_size
    found = maps(encoder(noise(2, 3, height, width), MODALITY))
    strides = (encoder.stride, *encoder.skip_strides)
    channels = (encoder.embed_channels, *encoder.skip_channels)
    assert [m.shape for m in found] == [
        (2, c, height // s, width // s) for c, s in zip(channels, strides, strict=True)
    ]


def test_skips_go_from_coarse_to_fine(encoder):
    strides = (encoder.stride, *encoder.skip_strides)
    assert list(strides) == sorted(strides, reverse=True)
    smallest = encoder.fixed_size or encoder.size_divisor
    assert smallest % (2 * encoder.stride) == 0  # the self-prompter halves the grid


def test_input_is_left_as_it_was(encoder):
    image, modality = noise(2, 3, 64, 64), MODALITY.clone()
    encoder(image, modality)
    assert torch.equal(image, noise(2, 3, 64, 64))
    assert torch.equal(modality, MODALITY)


def test_images_do_not_see_each_other(encoder):
    image = noise(2, 3, 64, 64)
    both, second = encoder(image, MODALITY), encoder(image[1:], MODALITY[1:])
    for all_rows, one in zip(maps(both), maps(second), strict=True):
        torch.testing.assert_close(all_rows[1:], one, rtol=1e-4, atol=1e-4)


def test_the_modality_matters(steered):
    image = noise(1, 3, 64, 64)
    first, second = (steered(image, torch.tensor([m])).embedding for m in (0, 1))
    assert (first - second).abs().mean() > 1e-3


def test_weights_loaded_after_eval_count(name, encoder):
    twin = build(name, seed=1)
    image = noise(2, 3, 64, 64)
    twin(image, MODALITY)
    twin.load_state_dict(encoder.state_dict())
    for a, b in zip(maps(twin(image, MODALITY)), maps(encoder(image, MODALITY)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_copy_shares_no_storage(encoder):
    own = {t.data_ptr() for t in encoder.state_dict().values()}
    assert own.isdisjoint(t.data_ptr() for t in copy.deepcopy(encoder).state_dict().values())


def test_gradient_reaches_every_parameter(encoder):
    twin = copy.deepcopy(encoder).requires_grad_(True).train()
    sum(m.square().sum() for m in maps(twin(noise(2, 3, 64, 64), MODALITY))).backward()
    assert [key for key, p in twin.named_parameters() if p.grad is None] == []


def test_another_modality_gets_no_gradient(steered):
    twin = copy.deepcopy(steered).requires_grad_(True).train()
    twin(noise(1, 3, 64, 64), torch.tensor([0])).embedding.square().sum().backward()
    reached = {key for key, p in twin.named_parameters() if p.grad is not None and p.grad.any()}
    other = {key for key, _ in twin.named_parameters() if "experts.1." in key or "controllers.1." in key}
    assert other
    assert reached.isdisjoint(other)


def test_controllers_are_all_that_belongs_to_modalities(name, encoder):
    named = {id(p): key for key, p in encoder.named_parameters()}
    found = {named[id(p)] for p in encoder.controller_parameters()}
    parts = (".experts.", ".controllers.", "attention.token")
    assert found == {key for key in named.values() if any(part in f".{key}" for part in parts)}
    assert bool(found) == (name not in PLAIN)


def test_without_indices_it_is_the_encoder_without_controllers(name, encoder):
    plain = build_encoder(name, modalities=0, **SMALL[name]).eval().requires_grad_(False)
    shared = encoder.state_dict()
    plain.load_state_dict(
        {k: v if k not in shared or not v.numel() else shared[k] for k, v in plain.state_dict().items()}
    )
    image = noise(2, 3, 64, 64)
    for a, b in zip(maps(encoder(image, None)), maps(plain(image, None)), strict=True):
        torch.testing.assert_close(a, b)
    own = {id(p) for p in encoder.controller_parameters()}
    twin = copy.deepcopy(encoder).requires_grad_(True)
    twin(image, None).embedding.square().sum().backward()
    reached = {id(encoder.get_parameter(key)) for key, p in twin.named_parameters() if p.grad is not None}
    assert reached
    assert reached.isdisjoint(own)


@pytest.mark.parametrize("index", [-1, 2])
def test_unknown_modality_is_refused(steered, index):
    with pytest.raises(UsageError, match=r"expected indices 0\.\.1"):
        steered(torch.zeros(1, 3, 64, 64), torch.tensor([index]))
