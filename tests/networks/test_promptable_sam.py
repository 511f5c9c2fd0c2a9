# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""PromptableSam against segment-anything's own forward, sizes as published, and batches of images and prompts."""

import pytest
import torch

from monai_effsam.errors import ShapeError, UsageError
from monai_effsam.networks.encoders.sam_vit import SAM_VITS
from monai_effsam.networks.nets import PromptableSam

SMALL = {"name": "sam_vit", "size": 256, "width": 32, "depth": 2, "heads": 2, "global_blocks": [1]}
TIMM = {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2, "modalities": 2}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def points(*shape, side=256, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * side


def boxes(*shape, side=256, seed=2):
    corners = points(*shape, 2, 2, side=side, seed=seed).sort(-2).values
    return corners.flatten(-2)


def labels(*shape):
    return torch.arange(torch.Size(shape).numel()).view(shape) % 2


@pytest.fixture(scope="module")
def sam(make_sam):
    """Tests must not change it."""
    return make_sam()


@pytest.fixture(scope="module")
def ours(sam):
    """The same weights, loaded strictly; tests must not change it."""
    network = PromptableSam(SMALL).eval().requires_grad_(False)
    network.load_state_dict(sam.state_dict(), strict=True)
    return network


PROMPTS = {
    "points": {"points": points(2, 3, 4, 2), "labels": labels(2, 3, 4)},
    "padded points": {"points": points(2, 3, 2, 2), "labels": torch.tensor([1, -1]).expand(2, 3, 2)},
    "boxes": {"boxes": boxes(2, 3)},
    "points and boxes": {"points": points(2, 3, 1, 2), "labels": labels(2, 3, 1), "boxes": boxes(2, 3)},
    "masks": {"masks": noise(2, 3, 64, 64)},
    "all": {
        "points": points(2, 3, 2, 2),
        "labels": labels(2, 3, 2),
        "boxes": boxes(2, 3),
        "masks": noise(2, 3, 64, 64),
    },
}


def record(image, given, row):
    """One image and its prompts as `Sam.forward` takes them; its own normalisation is undone beforehand."""
    names = {"points": "point_coords", "labels": "point_labels", "boxes": "boxes", "masks": "mask_inputs"}
    prompts = {names[k]: v[row, :, None] if k == "masks" else v[row] for k, v in given.items()}
    return {"image": image, "original_size": (256, 256), **prompts}


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("given", PROMPTS.values(), ids=PROMPTS)
def test_outputs_equal_those_of_segment_anything(sam, ours, given, multimask):
    raw = (noise(2, 3, 256, 256) * 60 + 120).clamp(0, 255)
    theirs = sam([record(raw[i], given, i) for i in range(2)], multimask)
    image = (raw - sam.pixel_mean) / sam.pixel_std
    found = ours(image, **given, multimask=multimask)
    assert found.mask_logits.shape == (2, 3, 3 if multimask else 1, 64, 64)
    assert found.mask_logits.std() > 0.01
    for i in range(2):
        torch.testing.assert_close(found.mask_logits[i], theirs[i]["low_res_logits"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.quality[i], theirs[i]["iou_predictions"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("given", PROMPTS.values(), ids=PROMPTS)
def test_many_images_and_prompts_get_what_each_would_get_alone(ours, given):
    encoded = ours.encode(noise(2, 3, 256, 256))
    together = ours.decode(encoded, **given)
    for i in range(2):
        for n in range(3):
            one = {k: v[i : i + 1, n : n + 1] for k, v in given.items()}
            alone = ours.decode(type(encoded)(encoded.embedding[i : i + 1]), **one)
            torch.testing.assert_close(
                together.mask_logits[i, n], alone.mask_logits[0, 0], rtol=1e-4, atol=1e-5
            )
            torch.testing.assert_close(together.quality[i, n], alone.quality[0, 0], rtol=1e-4, atol=1e-5)


TABLE = [  # encoder, its parameters, all parameters, entries of the state dict
    ({"name": "sam_vit", **SAM_VITS["vit_b"]}, 89_670_912, 93_735_472, 314),
    ({"name": "sam_vit", **SAM_VITS["vit_l"]}, 308_278_272, 312_342_832, 482),
    ({"name": "sam_vit", **SAM_VITS["vit_h"]}, 637_026_048, 641_090_608, 594),
    ({"name": "tiny_vit", "with_classifier": True}, 6_065_532, 10_130_092, 439),
    ({"name": "tiny_vit", "stem_stride": 1}, 5_726_740, 9_791_300, 435),
]


@pytest.mark.parametrize(
    ("encoder", "in_encoder", "total", "entries"),
    TABLE,
    ids=["vit_b", "vit_l", "vit_h", "mobile_sam", "lite_medsam"],
)
def test_sizes_are_the_published_ones(encoder, in_encoder, total, entries):
    with torch.device("meta"):
        network = PromptableSam(encoder)
    counts = {
        part: sum(p.numel() for p in network.get_submodule(part).parameters())
        for part in ("image_encoder", "prompt_encoder", "mask_decoder")
    }
    assert counts == {"image_encoder": in_encoder, "prompt_encoder": 6_220, "mask_decoder": 4_058_340}
    assert sum(counts.values()) == total
    assert len(network.state_dict()) == entries


@pytest.mark.parametrize(
    ("encoder", "side", "grid"),
    [
        (SMALL, 256, 16),
        ({"name": "tiny_vit"}, 256, 16),
        ({"name": "tiny_vit", "stem_stride": 1}, 64, 16),
        ({"name": "tiny_vit"}, 64, 4),
        (TIMM, 96, 6),
        ({**TIMM, "modalities": 0}, 96, 6),
    ],
    ids=["sam_vit", "tiny_vit", "lite", "small", "timm", "plain timm"],
)
def test_any_encoder_gives_masks_four_times_as_fine_as_its_grid(encoder, side, grid):
    network = PromptableSam(encoder).eval()
    with torch.inference_mode():
        encoded = network.encode(noise(2, 3, side, side))
        found = network.decode(encoded, boxes=boxes(2, 2, side=side))
    assert encoded.embedding.shape[-2:] == (grid, grid)
    assert found.mask_logits.shape == (2, 2, 1, 4 * grid, 4 * grid)
    assert network.prompt_frame(grid, grid) == (side, side)


def test_prompts_may_live_in_a_larger_frame_than_the_image(ours):
    double = PromptableSam(ours.image_encoder, prompt_size=511).eval()
    double.load_state_dict(ours.state_dict())
    encoded = ours.encode(noise(1, 3, 256, 256))
    small = (boxes(1, 1) + 0.5) * 511 / 256 - 0.5
    torch.testing.assert_close(
        double.decode(encoded, boxes=small).mask_logits,
        ours.decode(encoded, boxes=boxes(1, 1)).mask_logits,
        rtol=1e-3,
        atol=1e-4,
    )


def test_mask_prompts_of_another_size_are_fitted(ours):
    encoded = ours.encode(noise(1, 3, 256, 256))
    flat = torch.full((1, 1, 8, 8), 2.0)
    found, same = (ours.decode(encoded, masks=m) for m in (flat, torch.full((1, 1, 64, 64), 2.0)))
    torch.testing.assert_close(found.mask_logits, same.mask_logits)


def test_a_modality_steers_an_encoder_that_has_controllers():
    network = PromptableSam(TIMM).eval()
    for name, parameter in network.named_parameters():
        if "experts" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    first, second = (network.encode(noise(1, 3, 64, 64), torch.tensor([m])).embedding for m in (0, 1))
    assert (first - second).abs().mean() > 1e-3


def test_gradient_reaches_every_parameter_that_a_prompt_uses():
    network = PromptableSam(SMALL).train()
    out = network(noise(1, 3, 256, 256), **{k: v[:1] for k, v in PROMPTS["all"].items()}, multimask=True)
    (out.mask_logits.square().sum() + out.quality.square().sum()).backward()
    unused = {"not_a_point_embed", "no_mask_embed", "output_hypernetworks_mlps.0"}
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert {name for name in without if not any(part in name for part in unused)} == set()


REFUSED = {
    "no prompt": ({}, UsageError, "no prompt given"),
    "points alone": ({"points": points(2, 3, 1, 2)}, UsageError, "Label each point"),
    "fewer labels": (
        {"points": points(2, 3, 2, 2), "labels": labels(2, 3, 1)},
        ShapeError,
        r"expected one a point, \(2, 3, 2\)",
    ),
    "fewer images": ({"boxes": boxes(1, 3)}, ShapeError, r"expected \(B, N, 4\) with B = 2"),
    "flat boxes": ({"boxes": boxes(2)}, ShapeError, r"boxes have shape \(2, 4\)"),
    "other corners": ({"boxes": noise(2, 3, 6)}, ShapeError, r"boxes have shape \(2, 3, 6\)"),
    "unequal counts": (
        {"boxes": boxes(2, 3), "masks": noise(2, 1, 64, 64)},
        ShapeError,
        "'boxes': 3, 'masks': 1}, expected one N",
    ),
}


@pytest.mark.parametrize(("given", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_prompts_that_cannot_be_used_are_refused(ours, given, error, message):
    encoded = type(ours.encode(noise(1, 3, 256, 256)))(noise(2, 256, 16, 16))
    with pytest.raises(error, match=message):
        ours.decode(encoded, **given)


def test_images_of_another_shape_are_refused():
    network = PromptableSam({"name": "tiny_vit"})
    with pytest.raises(ShapeError, match=r"multiples of 32\. Apply the model's ImageSpec first"):
        network.encode(noise(1, 3, 48, 64))
