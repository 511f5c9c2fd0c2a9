# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Numerical conformance of every ESP-MedSAM part with the released arithmetic."""

import pytest
import torch

from monai_effsam.losses import SelfPromptMaskLoss
from monai_effsam.networks.encoders.tiny_vit import TinyVitEncoder

ROWS = [
    "block",
    "padded_block",
    "attention",
    "neck",
    "patch_decoder",
    "dense_prompter",
    "tokens",
    "image_tokens",
    "joint_masks",
    "only_query_0",
    "only_query_1",
    "only_query_5",
]
DIGITS = 1e-6  # the table holds six decimals


def assert_row(found, row, tolerance=DIGITS):
    """Mean, unbiased deviation, single values and counts of a tensor, as far as the row has them."""
    got = {"values": [found[tuple(index)].item() for index, _ in row["values"]]}
    want = {"values": [value for _, value in row["values"]]}
    summary = {
        "mean": found.mean().item(),
        "std": found.std().item(),
        "range": [found.min().item(), found.max().item()],
    }
    for key in summary.keys() & row.keys():
        got[key], want[key] = summary[key], row[key]
    assert got.keys() == want.keys()
    for key in want:
        assert got[key] == pytest.approx(want[key], abs=tolerance), key


def as_map(tokens, height, width):
    return tokens.view(1, height, width, -1).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def found(release, hashed):
    """Every fast component's output, by the name of its row."""
    block = release.encoder.layers[1].blocks[0]
    prompter, decoder = release.prompter, release.decoder
    source, position = hashed("src", 1, 256, 8, 8), hashed("pos", 1, 256, 8, 8)
    tokens, image = decoder.transformer(source, position, decoder.mask_query.weight[None])
    prompt = prompter(source)
    out = {
        "block": block(as_map(hashed("blk", 1, 196, 128), 14, 14), [0]).flatten(2).transpose(1, 2),
        "padded_block": block(as_map(hashed("blk", 1, 100, 128), 10, 10), [0]).flatten(2).transpose(1, 2),
        "attention": block.attn(hashed("att", 2, 49, 128), block.controllers.tokens_of([0], 2)),
        "neck": release.encoder.neck(hashed("nk", 1, 320, 8, 8)),
        "patch_decoder": prompt.patch_logits,
        "dense_prompter": prompt.dense,
        "tokens": tokens,
        "image_tokens": image,
        "joint_masks": decoder(source, (), position, torch.arange(6)).mask_logits,
    }
    decoder.query_mode = "single"
    for query in (0, 1, 5):
        out[f"only_query_{query}"] = decoder(source, (), position, torch.tensor([query])).mask_logits
    decoder.query_mode = "joint"
    return out


def test_generator_gives_the_published_start(hashed):
    torch.testing.assert_close(
        hashed("abc", 4), torch.tensor([0.666818, 0.663266, 0.576230, 0.978490]).double(), atol=DIGITS, rtol=0
    )


@pytest.mark.parametrize("name", ROWS)
def test_component_reproduces_the_release(name, found, golden):
    assert_row(found[name], golden["components"][name])


def test_patch_map_has_the_published_number_of_positive_cells(found, golden):
    assert (found["patch_decoder"] >= 0).sum() == golden["components"]["patch_decoder"]["positive"]


def test_mask_loss_reproduces_the_published_value(hashed, golden):
    row = golden["mask_loss"]
    logits, mask = 3 * hashed("logit", 2, 1, 8, 8), hashed("y", 2, 1, 8, 8) > 0.2
    assert mask.sum() == row["foreground"]
    assert SelfPromptMaskLoss()(logits, mask).item() == pytest.approx(row["total"], abs=DIGITS)
    assert SelfPromptMaskLoss(dice_weight=1)(logits, mask).item() == pytest.approx(row["dice"], abs=DIGITS)
    assert SelfPromptMaskLoss(dice_weight=0)(logits, mask).item() == pytest.approx(row["focal"], abs=DIGITS)


def test_position_code_reproduces_segment_anything(release_network, golden):
    assert_row(release_network(torch.float32).point_box.position(64, 64), golden["position"], 1e-5)


@pytest.mark.slow
def test_whole_network_at_1024_pixels_reproduces_the_release(release_network, hashed, golden):
    network, rows = release_network(torch.float32), golden["full"]
    y, x, c = (
        torch.arange(1024.0).double()[:, None],
        torch.arange(1024.0).double(),
        torch.arange(3.0).double(),
    )
    image = 2 * torch.sin(0.01 * y * (c[:, None, None] + 1)) * torch.cos(0.013 * x) + 0.5 * hashed(
        "input", 3, 1024, 1024
    )
    assert image[0, 0, 0].item() == pytest.approx(-0.208391, abs=DIGITS)
    image = image[None].float()

    encoded = network.encode(image, torch.tensor([0]))
    assert_row(encoded.embedding, rows["embedding"], 1e-5)
    prompt = network.prompter(encoded.embedding)
    assert_row(prompt.patch_logits, rows["patch_logits"], 1e-5)
    assert (prompt.patch_logits >= 0).sum() == rows["patch_logits"]["positive"]
    assert prompt.dense[0, 0].unique().tolist() == pytest.approx(rows["dense_vectors"], abs=1e-5)
    masks = network.decoder(
        encoded.embedding + prompt.dense, (), network.point_box.position(64, 64), torch.arange(6)
    ).mask_logits
    masks = torch.nn.functional.interpolate(masks, size=(1024, 1024), mode="bilinear", align_corners=False)[0]
    for mask, row in zip(masks, rows["masks"], strict=True):
        assert_row(mask, row, 1e-5)
        assert int((mask >= 0).sum()) == pytest.approx(row["positive"], abs=2)

    plain = TinyVitEncoder(0, with_classifier=True).eval()
    plain.load_state_dict(network.encoder.state_dict(), strict=False)
    with torch.no_grad():
        assert_row(plain(image, torch.tensor([0])).embedding, rows["plain_embedding"], 1e-5)
