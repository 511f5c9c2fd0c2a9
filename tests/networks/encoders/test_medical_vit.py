# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The medical teacher: a ViT of SAM's with tokens and experts, near to the plain one when fresh."""

import math

import pytest
import torch
from torch.nn import functional as F

from monai_effsam.errors import SpecError
from monai_effsam.networks.blocks import MedicalVitBlock
from monai_effsam.networks.encoders import SamVitEncoder
from monai_effsam.networks.encoders.sam_vit import SAM_VITS

ZERO = torch.zeros(1, dtype=torch.int64)
SMALL = {"size": 256, "width": 32, "depth": 2, "heads": 2, "global_blocks": [1], "medical_tokens": 3}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_weights(sam, **options):
    """A medical ViT with the weights of a plain one."""
    torch.manual_seed(1)
    ours = SamVitEncoder(2, **{**SMALL, **options}).eval()
    missing, unexpected = ours.load_state_dict(sam.state_dict(), strict=False)
    assert unexpected == []
    assert {name.split(".")[2] for name in missing} == {"medical"}
    return ours


def test_sizes_are_those_of_the_reconstruction():
    with torch.device("meta"):
        encoder = SamVitEncoder(7, **SAM_VITS["vit_b"], medical_tokens=10)
    added = [p.numel() for p in encoder.controller_parameters()]
    block = encoder.blocks[0].medical
    tokens = block.key_token.numel() + block.value_token.numel()
    assert (tokens, sum(p.numel() for p in block.parameters())) == (15_360, 311_232)
    assert sum(added) == 3_734_784
    assert sum(p.numel() for p in encoder.parameters()) == 89_670_912 + 3_734_784


@torch.inference_mode()
def test_without_weight_on_the_tokens_a_fresh_one_is_segment_anything_s(make_sam):
    sam = make_sam(size=256).image_encoder
    image = noise(1, 3, 256, 256)
    fresh = with_weights(sam, token_bias=-math.inf)
    torch.testing.assert_close(fresh(image, ZERO).embedding, sam(image), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_without_medical_parts_it_is_segment_anything_s(make_sam, scatter):
    sam = make_sam(size=256).image_encoder
    ours = scatter(with_weights(sam, token_bias=0.0))
    ours.load_state_dict(sam.state_dict(), strict=False)
    image = noise(1, 3, 256, 256)
    torch.testing.assert_close(ours(image, None).embedding, sam(image))
    assert (ours(image, ZERO).embedding - sam(image)).abs().mean() > 0.01


@torch.inference_mode()
def test_a_fresh_one_is_near_to_segment_anything_s(make_sam):
    sam = make_sam(size=256).image_encoder
    image = noise(1, 3, 256, 256)
    plain = sam(image)
    near, far = (
        (with_weights(sam, token_bias=b)(image, ZERO).embedding - plain).abs().mean() for b in (-5, 0)
    )
    assert 0 < near < 1e-3
    assert far > 30 * near


@pytest.mark.parametrize("row", [0, 1], ids=["windows", "global"])
@torch.inference_mode()
def test_attention_equals_one_over_lengthened_keys_and_values(make_sam, scatter, row):
    block = scatter(with_weights(make_sam(size=256).image_encoder, token_bias=-0.5)).blocks[row]
    assert (block.window == 0) == (row == 1)
    x, attn, medical = noise(2, 5, 5, 32), block.attn, block.medical
    q, k, v = attn.qkv(x).view(2, 25, 3, 2, 16).permute(2, 0, 3, 1, 4)
    rows = torch.arange(25)
    # position of key j seen from query i, by rows and by columns, as segment-anything learns them
    down, across = rows[:, None] // 5 - rows // 5, rows[:, None] % 5 - rows % 5
    tables = [attn.rel_pos_h, attn.rel_pos_w]
    tables = [F.interpolate(t.T[None], size=9, mode="linear")[0].T for t in tables]
    position = torch.einsum("bhid,ijd->bhij", q, tables[0][down + 4] + tables[1][across + 4])
    keys = torch.cat([k, medical.key_token.expand(2, -1, -1, -1)], 2)
    values = torch.cat([v, medical.value_token.expand(2, -1, -1, -1)], 2)
    bias = F.pad(position, (0, 3), value=-0.5)
    want = (
        F.scaled_dot_product_attention(q, keys, values, attn_mask=bias).transpose(1, 2).reshape(2, 5, 5, 32)
    )
    torch.testing.assert_close(block._attend(x), attn.proj(want), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_expert_reads_what_the_mlp_reads_and_is_added_to_it(make_sam, scatter):
    sam = make_sam(size=256).image_encoder
    block = scatter(with_weights(sam, token_bias=-math.inf)).blocks[1]
    x = noise(1, 4, 4, 32)
    middle = x + block._attend(block.norm1(x))
    inner = block.norm2(middle)
    answer = block.medical.fc2(F.gelu(block.medical.fc1(inner)))
    assert answer.abs().mean() > 1e-3
    torch.testing.assert_close(block(x), middle + block.mlp(inner) + answer)


@pytest.mark.parametrize("size", [64, 256], ids=["less than a window", "padded windows"])
def test_only_medical_parts_train_and_all_of_them_do(size):
    encoder = SamVitEncoder(2, **{**SMALL, "size": size}, trainable="medical")
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in encoder.named_parameters() if ".medical." in name}
    assert all(isinstance(block, MedicalVitBlock) for block in encoder.blocks)
    torch.nn.init.normal_(encoder.blocks[1].medical.fc2.weight)
    encoder.blocks[0].medical.fc2.weight.data.fill_(0.1)
    for block in encoder.blocks:
        torch.nn.init.normal_(block.medical.value_token)
    encoder(noise(1, 3, size, size), ZERO).embedding.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if n in trained and not p.grad.any()] == []


@pytest.mark.parametrize("part", ["key_token", "value_token"])
def test_fresh_tokens_get_gradient(part):
    encoder = SamVitEncoder(2, **SMALL)
    encoder(noise(1, 3, 256, 256), ZERO).embedding[:, 0].square().sum().backward()
    assert all(getattr(block.medical, part).grad.any() for block in encoder.blocks)


def test_medical_training_without_medical_parts_is_refused():
    with pytest.raises(SpecError, match="trainable is 'medical', expected 'all'"):
        SamVitEncoder(trainable="medical", **{**SMALL, "medical_tokens": 0})
