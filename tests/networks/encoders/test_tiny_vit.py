# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The TinyViT encoder under the encoders' contract, and its refusals."""

import copy

import pytest
import torch

from monai_effsam.errors import ShapeError, UsageError
from monai_effsam.networks.encoders import build_encoder

MODALITY = torch.tensor([1, 0])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def encoder():
    """Two modalities, skips; tests must not change it."""
    torch.manual_seed(0)
    return build_encoder("tiny_vit", modalities=2, release_init=True, skips=True).eval().requires_grad_(False)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (96, 160)])
def test_maps_have_the_promised_shapes_at_any_size(encoder, height, width):
    out = encoder(noise(1, 3, height, width), torch.tensor([1]))
    maps = (out.embedding, *out.skips)
    strides = (encoder.stride, *encoder.skip_strides)
    channels = (encoder.embed_channels, *encoder.skip_channels)
    assert [m.shape for m in maps] == [
        (1, c, height // s, width // s) for c, s in zip(channels, strides, strict=True)
    ]


def test_without_the_option_there_are_no_skips():
    plain = build_encoder("tiny_vit", modalities=0).eval()
    assert (
        plain.skip_channels == plain.skip_strides == plain(noise(1, 3, 32, 32), torch.tensor([0])).skips == ()
    )


def test_input_is_left_as_it_was(encoder):
    image = noise(2, 3, 64, 64)
    before = image.clone()
    encoder(image, MODALITY)
    assert torch.equal(image, before)


def test_images_do_not_see_each_other(encoder):
    image = noise(2, 3, 64, 64)
    both, second = encoder(image, MODALITY), encoder(image[1:], MODALITY[1:])
    torch.testing.assert_close(both.embedding[1:], second.embedding, rtol=1e-4, atol=1e-5)


def test_the_modality_matters(encoder):
    image = noise(1, 3, 64, 64)
    first, second = (encoder(image, torch.tensor([m])).embedding for m in (0, 1))
    assert (first - second).abs().mean() > 0.01


def test_weights_loaded_after_eval_count(encoder):
    torch.manual_seed(1)
    twin = build_encoder("tiny_vit", modalities=2, skips=True).eval()
    twin.load_state_dict(encoder.state_dict())
    image = noise(2, 3, 64, 64)
    assert torch.equal(twin(image, MODALITY).embedding, encoder(image, MODALITY).embedding)


def test_gradient_reaches_every_parameter(encoder):
    twin = copy.deepcopy(encoder).requires_grad_(True).train()
    twin(noise(2, 3, 64, 64), MODALITY).embedding.square().sum().backward()
    assert [name for name, p in twin.named_parameters() if p.grad is None] == []


def test_fresh_controllers_hardly_disturb_the_shared_network():
    torch.manual_seed(0)
    fresh, plain = (
        build_encoder("tiny_vit", modalities=1).eval(),
        build_encoder("tiny_vit", modalities=0).eval(),
    )
    plain.load_state_dict(fresh.state_dict(), strict=False)
    image = noise(1, 3, 64, 64)
    with torch.no_grad():
        shift = fresh(image, torch.tensor([0])).embedding - plain(image, torch.tensor([0])).embedding
    assert 0 < shift.abs().mean() < 0.01


@pytest.mark.parametrize("shape", [(1, 3, 48, 64), (1, 1, 64, 64), (3, 64, 64), (1, 3, 0, 64)])
def test_images_of_another_shape_are_refused(encoder, shape):
    with pytest.raises(ShapeError, match=r"multiples of 32\. Apply the model's ImageSpec first"):
        encoder(torch.zeros(shape), torch.tensor([0]))


def test_a_modality_for_each_image_is_asked_for(encoder):
    with pytest.raises(ShapeError, match="Give one index an image"):
        encoder(torch.zeros(2, 3, 32, 32), torch.tensor([0]))


@pytest.mark.parametrize("index", [-1, 2])
def test_unknown_modality_is_refused(encoder, index):
    with pytest.raises(UsageError, match=r"expected indices 0\.\.1"):
        encoder(torch.zeros(1, 3, 32, 32), torch.tensor([index]))
