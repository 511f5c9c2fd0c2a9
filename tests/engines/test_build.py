# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a training starts from: weights of SAM for a self-prompting network, the medical teacher for one."""

import math

import pytest
import torch

from monai_effsam.engines.build import build_network
from monai_effsam.engines.recipe import Recipe
from monai_effsam.errors import WeightsError

VIT = {"name": "sam_vit", "size": 256, "width": 32, "depth": 2, "heads": 2, "global_blocks": [1]}
MEDICAL = {**VIT, "medical_tokens": 3, "token_bias": -math.inf, "trainable": "medical"}


def recipe(**changes):
    return Recipe(encoder={**MEDICAL, **changes}, decoder={"mlp_dim": 2048, "hyper_dim": 16})


@pytest.fixture(scope="module")
def sam(make_sam):
    return make_sam(size=256)


@pytest.fixture(scope="module")
def sam_file(sam, tmp_path_factory):
    path = tmp_path_factory.mktemp("sam") / "sam.pth"
    torch.save(sam.state_dict(), path)
    return path


@torch.inference_mode()
def test_a_medical_teacher_starts_as_sam(sam, sam_file):
    network = build_network(recipe(), init=sam_file).eval()
    image = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    found = network.encode(image, torch.tensor([3])).embedding
    torch.testing.assert_close(found, sam.image_encoder(image), rtol=1e-5, atol=1e-5)
    own, theirs = network.decoder.transformer.state_dict(), sam.mask_decoder.transformer.state_dict()
    assert all(torch.equal(own[name], value) for name, value in theirs.items())
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert not [n for n in trained if n.startswith("encoder.") and ".medical." not in n]
    assert {name.split(".")[0] for name in trained} >= {"encoder", "prompter", "decoder"}


def test_positions_are_put_on_another_grid(sam, sam_file):
    network = build_network(recipe(size=128), init=sam_file)
    theirs, ours = sam.image_encoder.state_dict(), network.encoder.state_dict()
    assert ours["pos_embed"].shape == (1, 8, 8, 32)
    middle = theirs["pos_embed"].mean((1, 2))
    torch.testing.assert_close(ours["pos_embed"].mean((1, 2)), middle, rtol=0.1, atol=0.02)
    # relative positions: the farthest and the own place stay, those between are interpolated
    wide, narrow = theirs["blocks.1.attn.rel_pos_h"], ours["blocks.1.attn.rel_pos_h"]
    assert (len(wide), len(narrow)) == (31, 15)
    torch.testing.assert_close(narrow[7], wide[15], rtol=1e-4, atol=1e-5)
    assert torch.equal(ours["blocks.0.attn.rel_pos_w"], theirs["blocks.0.attn.rel_pos_w"])


def test_sam_of_another_width_is_refused(sam_file):
    with pytest.raises(
        WeightsError, match=r"tensors of its encoder do not fit the recipe's, such as \['encoder\."
    ):
        build_network(recipe(width=64), init=sam_file)
    with pytest.raises(WeightsError, match="Choose a recipe with that encoder, or 'none'"):
        build_network(Recipe(encoder={"name": "timm", "model": "mobilenetv3_small_050"}), init=sam_file)


def test_a_promptable_model_of_ours_lends_its_encoder(tiny_promptable):
    plain = {**VIT, "size": 64, "modalities": 0}
    network = build_network(Recipe(encoder=plain), init=tiny_promptable)
    stored = torch.load(tiny_promptable, weights_only=True)
    own = network.encoder.state_dict()
    assert all(torch.equal(own[k], stored[f"image_encoder.{k}"].float()) for k in own)
