# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The TinyViT encoder under the encoders' contract, and its refusals."""

import copy
import re

import pytest
import torch

from monai_effsam.errors import ShapeError, SpecError, UsageError
from monai_effsam.networks.encoders import build_encoder
from monai_effsam.networks.foreign import import_timm

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


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 40)])
def test_lite_medsams_stem_keeps_the_resolution(height, width):
    lite = build_encoder("tiny_vit", modalities=0, stem_stride=1, skips=True).eval()
    out = lite(noise(1, 3, height, width), torch.tensor([0]))
    assert (lite.stride, lite.size_divisor, lite.skip_strides) == (4, 8, (2, 1))
    assert [tuple(m.shape[-2:]) for m in (out.embedding, *out.skips)] == [
        (height // s, width // s) for s in (4, 2, 1)
    ]


def timm_name(key):
    """timm's name for an entry of ours; its mergings open the next stage."""
    key = key.replace("seq.0.", "conv1.").replace("seq.2.", "conv2.").replace(".c.", ".conv.")
    stage, rest = re.fullmatch(r"(?:layers\.(\d)\.)?(.*)", key).groups()
    return rest if stage is None else f"stages_{int(stage) + rest.startswith('downsample')}.{rest}"


@pytest.mark.parametrize(("stem_stride", "side"), [(4, (160, 224)), (1, (40, 56))])
def test_stages_equal_those_of_timm(scatter, stem_stride, side):
    """timm's TinyViT is an independent one; it halves the map before its last stage, MobileSAM does not."""
    features = {"features_only": True, "out_indices": (0, 1, 2)}
    theirs = scatter(import_timm().create_model("tiny_vit_5m_224", **features))
    ours = build_encoder("tiny_vit", modalities=0, stem_stride=stem_stride).eval().requires_grad_(False)
    state = {k: theirs.state_dict().get(timm_name(k)) for k in ours.state_dict()}
    own = ("neck", "layers.3", "layers.2.downsample", *(() if stem_stride == 4 else ("patch_embed",)))
    assert [k for k, v in state.items() if v is None and not k.startswith(own)] == []
    ours.load_state_dict({k: v for k, v in state.items() if not k.startswith(own)}, strict=False)
    image = noise(2, 3, *side)  # maps of 40 x 56: windows of 7 and 14 cells are padded
    found = ours.patch_embed(image)
    expected = theirs.patch_embed(image) if stem_stride == 4 else found
    for i, stage in enumerate(ours.layers[:3]):
        kept, found = stage(found, [])
        expected = theirs.get_submodule(f"stages_{i}")(expected)
        torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-4)


def test_another_stem_is_refused():
    with pytest.raises(SpecError, match="stride is 2, expected 4 or 1"):
        build_encoder("tiny_vit", modalities=0, stem_stride=2)


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
