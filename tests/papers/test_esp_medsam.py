# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What ESP-MedSAM's paper and release say about sizes, shapes and behaviour."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from monai_effsam.checkpoints.esp_release import RELEASE_MODALITIES, RELEASE_OPTIONS
from monai_effsam.losses import PatchPromptLoss, SelfPromptMaskLoss, patch_target
from monai_effsam.networks.encoders.tiny_vit import TinyVitEncoder

CONTROLLER = 3_144_202
SAM_B = 93_735_472
ZERO = torch.tensor([0])
OWN_CHANNELS = {"patch_per_target": False, "decoder": {"estimates": False}}


def count(module):
    return sum(p.numel() for p in module.parameters())


def image(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def release(build):
    """The release's network without weights: shapes and counts only."""
    return build(RELEASE_MODALITIES, controllers=1, with_classifier=True, device="meta", **RELEASE_OPTIONS)


# Sizes


@pytest.mark.parametrize(
    ("part", "parameters"),
    [
        ("", 12_789_587),
        ("encoder", 9_209_734),
        ("encoder.patch_embed", 19_488),
        ("encoder.layers.0", 98_944),
        ("encoder.layers.1", 448_232 + 2 * 132_097),
        ("encoder.layers.2", 2_030_520 + 6 * 206_081),
        ("encoder.layers.3", 2_473_940 + 2 * 821_761),
        ("encoder.layers.1.downsample", 48_480),
        ("encoder.layers.2.downsample", 158_400),
        ("encoder.layers.1.blocks.0.controllers", 132_097),
        ("encoder.layers.2.blocks.0.controllers", 206_081),
        ("encoder.layers.3.blocks.0.controllers", 821_761),
        ("encoder.neck", 672_768),
        ("prompter", 66_817),
        ("prompter.patch_decoder", 65_793),
        ("prompter.dense_prompter", 1_024),
        ("point_box", 6_220),
        ("decoder.mask_query", 1_792),
        ("decoder.transformer", 3_291_264),
        ("decoder.output_upscaling", 73_952),
        ("decoder.output_hypernetworks_mlps", 139_808),
    ],
)
def test_release_part_has_the_published_size(release, part, parameters):
    assert count(release.get_submodule(part)) == parameters


def test_plain_tiny_vit_has_the_size_of_mobile_sams_encoder():
    assert count(TinyVitEncoder(0, with_classifier=True)) == 6_065_532
    assert count(TinyVitEncoder(0)) == 5_743_892


def test_one_controller_has_the_published_size(release):
    assert sum(p.numel() for p in release.encoder.controller_parameters()) == CONTROLLER


@pytest.mark.parametrize(("modalities", "targets"), [(1, 1), (1, 6), (6, 6), (6, 7)])
def test_size_follows_the_general_formula(build, modalities, targets):
    rows = [f"m{min(i, modalities - 1)}" for i in range(targets)]
    network = build(rows, with_classifier=True, device="meta", **OWN_CHANNELS)
    assert count(network) == 9_503_785 + CONTROLLER * modalities + 140_064 * targets


def test_six_modalities_take_about_a_third_of_sam_b(build):
    size = count(build([f"m{i}" for i in range(6)], with_classifier=True, device="meta", **OWN_CHANNELS))
    assert size == 29_209_381
    assert 0.30 < size / SAM_B < 0.32


@pytest.mark.parametrize(
    ("side", "modalities", "giga"), [(1024, 0, 38.768), (1024, 1, 54.832), (512, 1, 14.318), (256, 1, 4.039)]
)
def test_encoder_costs_the_published_multiply_adds(side, modalities, giga):
    with torch.device("meta"):
        encoder, picture = TinyVitEncoder(modalities), torch.zeros(1, 3, side, side)
    with FlopCounterMode(display=False) as counter:
        encoder(picture, ZERO)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, abs=5e-4)


def test_shapes_at_1024_pixels_are_those_of_the_release(release):
    encoded = release.encode(torch.zeros(1, 3, 1024, 1024, device="meta"), ZERO)
    prompt = release.prompter(encoded.embedding)
    masks = release.decoder(
        encoded.embedding + prompt.dense, (), release.point_box.position(64, 64), torch.tensor([2])
    ).mask_logits
    assert encoded.embedding.shape == prompt.dense.shape == (1, 256, 64, 64)
    assert prompt.patch_logits.shape == (1, 1, 32, 32)
    assert masks.shape == (1, 1, 256, 256)
    assert encoded.skips == ()


# Modality controllers


def test_plain_weights_leave_exactly_the_controllers_entries_missing():
    found = TinyVitEncoder(1).load_state_dict(TinyVitEncoder(0).state_dict(), strict=False)
    assert len(found.missing_keys) == 80
    assert all("controllers" in key for key in found.missing_keys)
    assert found.unexpected_keys == []


@torch.no_grad()
def test_silenced_controllers_leave_tiny_vit_bit_equal():
    encoder, plain = TinyVitEncoder(1, release_init=True).eval(), TinyVitEncoder(0).eval()
    plain.load_state_dict(encoder.state_dict(), strict=False)
    picture = image(1, 3, 96, 128)
    want = plain(picture, ZERO).embedding
    assert not torch.equal(encoder(picture, ZERO).embedding, want)
    for name, parameter in encoder.named_parameters():
        if "controllers" in name and name.endswith((".bias", "fc2.weight")):
            parameter.fill_(-1e4 if name.endswith("0.bias") else 0)
    assert torch.equal(encoder(picture, ZERO).embedding, want)


@torch.no_grad()
def test_mixed_batch_equals_each_image_alone(build):
    network = build(["a", "b", "b", "c"])
    batch, modality = image(4, 3, 64, 64), torch.tensor([2, 0, 1, 0])
    together = network(batch, modality)
    alone = torch.cat([network(batch[i : i + 1], modality[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_second_distillation_stage_changes_controllers_alone():
    student = TinyVitEncoder(2, with_classifier=True)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    student.requires_grad_(False).eval()
    for parameter in student.controller_parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=5e-4)
    embedding = student(image(1, 3, 64, 64), torch.tensor([1])).embedding
    F.mse_loss(embedding, torch.zeros_like(embedding)).backward()
    optimizer.step()
    changed = {name for name, tensor in student.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all("controllers.1" in name for name in changed)


# Self-patch prompts


@pytest.mark.parametrize(("shift", "vectors"), [(0.0, 2), (-100.0, 1), (100.0, 1)])
@torch.no_grad()
def test_hard_prompt_is_a_table_of_two_vectors(build, shift, vectors):
    prompter = build(["a"], prompt_mode="hard").prompter
    prompter.patch_decoder[3].bias.fill_(shift)
    dense = prompter(image(1, 256, 8, 8)).dense
    assert len(dense.flatten(2)[0].T.unique(dim=0)) == vectors


@pytest.mark.parametrize(("mode", "reaches"), [("hard", False), ("soft", True), ("ste", True)])
def test_mask_loss_reaches_the_patch_head_as_the_mode_says(build, mode, reaches):
    network = build(["a"], prompt_mode=mode)
    logits = network(image(1, 3, 64, 64))
    SelfPromptMaskLoss()(logits, image(1, 1, 64, 64) > 0).backward()
    gradients = [
        p.grad is not None and bool(p.grad.any()) for p in network.prompter.patch_decoder.parameters()
    ]
    assert gradients == [reaches] * 6
    assert network.prompter.dense_prompter[0].weight.grad.any()


@torch.no_grad()
def test_straight_through_prompt_equals_the_hard_one(build):
    hard, ste = build(["a"], prompt_mode="hard").prompter, build(["a"], prompt_mode="ste").prompter
    embedding = image(1, 256, 8, 8)
    torch.testing.assert_close(ste(embedding).dense, hard(embedding).dense, rtol=0, atol=1e-6)


def test_one_foreground_pixel_marks_exactly_its_patch():
    mask = torch.zeros(1, 1, 1024, 1024, dtype=torch.uint8)
    mask[0, 0, 517, 96] = 255
    assert patch_target(mask, (32, 32)).nonzero().tolist() == [[0, 0, 517 // 32, 96 // 32]]


def test_patch_loss_trains_the_patch_head_in_hard_mode(build):
    network = build(["a"], prompt_mode="hard")
    patches = network.decode(network.encode(image(1, 3, 64, 64), ZERO), 0).patch_logits
    PatchPromptLoss()(patches, image(1, 1, 64, 64) > 0).backward()
    assert network.prompter.patch_decoder[0].weight.grad.any()


# Decoupled modalities


def copy_shared(source, into):
    """Give `into` all that `source` has; what only `into` has keeps its own weights."""
    mine = into.state_dict()
    for name, tensor in source.state_dict().items():
        mine[name][tuple(slice(size) for size in tensor.shape)] = tensor
    into.load_state_dict(mine)


@pytest.mark.parametrize("query_mode", ["modality", "single"])
@pytest.mark.parametrize("patch_per_target", [False, True])
@torch.no_grad()
def test_adding_a_modality_leaves_old_masks_bit_equal(build, query_mode, patch_per_target):
    options = {"patch_per_target": patch_per_target, "decoder": {"query_mode": query_mode}}
    old, new = build(["a", "a", "b"], **options), build(["a", "a", "b", "c"], **options)
    copy_shared(old, new)
    picture = image(1, 3, 64, 64)
    for modality in (0, 1):
        rows = old.targets_of(modality)
        assert torch.equal(old(picture, modality)[:, rows], new(picture, modality)[:, rows])


PRIVATE = {
    "query": "decoder.mask_query.weight",
    "hyper-MLP": "decoder.output_hypernetworks_mlps.1.layers.2.weight",
    "token": "encoder.layers.1.blocks.0.controllers.1.key_token",
    "expert": "encoder.layers.3.blocks.1.controllers.1.expert.fc2.weight",
}


@pytest.mark.parametrize("part", PRIVATE.values(), ids=PRIVATE)
@torch.no_grad()
def test_perturbing_another_modality_leaves_masks_bit_equal(build, part):
    network = build(["a", "b"])
    picture = image(1, 3, 64, 64)
    first, second = network(picture, 0)[:, 0], network(picture, 1)[:, 1]
    weight = network.get_parameter(part)
    weight[1 if part == PRIVATE["query"] else ...] += 1
    assert torch.equal(network(picture, 0)[:, 0], first)
    assert not torch.equal(network(picture, 1)[:, 1], second)


@torch.no_grad()
def test_perturbing_another_query_changes_masks_in_joint_mode(build):
    network = build(["a", "b"], decoder={"query_mode": "joint", "spare_queries": 1})
    picture = image(1, 3, 64, 64)
    first = network(picture, 0)[:, 0]
    network.decoder.mask_query.weight[2] += 1
    assert (network(picture, 0)[:, 0] - first).abs().max() > 1e-4


def test_queries_of_a_modality_get_no_gradient_from_another(build):
    network = build(["a", "b", "b"])
    network(image(1, 3, 64, 64), 1)[:, 1:].square().mean().backward()
    assert network.decoder.mask_query.weight.grad.any(dim=1).tolist() == [False, True, True]
    assert network.decoder.output_hypernetworks_mlps[0].layers[0].weight.grad is None


@pytest.mark.parametrize("query_mode", ["modality", "joint"])
@torch.no_grad()
def test_permuting_targets_permutes_masks(build, query_mode):
    network = build(["a", "a", "a"], **OWN_CHANNELS | {"decoder": {"query_mode": query_mode}})
    picture, order = image(1, 3, 64, 64), [2, 0, 1]
    before = network(picture)
    state = network.state_dict()
    changed = {"decoder.mask_query.weight": state["decoder.mask_query.weight"][order]}
    stem = "decoder.output_hypernetworks_mlps."
    for name in [n for n in state if n.startswith(stem)]:
        index, rest = name.removeprefix(stem).split(".", 1)
        changed[name] = state[f"{stem}{order[int(index)]}.{rest}"]
    network.load_state_dict(state | {name: tensor.clone() for name, tensor in changed.items()})
    torch.testing.assert_close(network(picture), before[:, order], rtol=0, atol=1e-6)


@torch.no_grad()
def test_single_mode_equals_one_target_asked_alone(build):
    network = build(["a", "a"], decoder={"query_mode": "single"})
    embedding, position = image(1, 256, 4, 4), network.point_box.position(4, 4)
    both = network.decoder(embedding, (), position, torch.tensor([0, 1]))
    alone = network.decoder(embedding, (), position, torch.tensor([1]))
    assert torch.equal(both.mask_logits[:, 1:], alone.mask_logits)
    assert torch.equal(both.presence[:, 1:], alone.presence)


# Mask loss


def test_mask_loss_of_a_perfect_answer_is_zero():
    mask = (image(2, 1, 8, 8) > 0).double()
    assert SelfPromptMaskLoss()(200 * mask - 100, mask).item() == pytest.approx(0, abs=1e-12)


def test_mask_loss_of_undecided_logits_on_an_empty_mask():
    empty = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    assert SelfPromptMaskLoss(dice_weight=1)(empty, empty).item() == pytest.approx(1 - 1 / (64 / 2 + 1))
    assert SelfPromptMaskLoss(dice_weight=0)(empty, empty).item() == pytest.approx(0.8 * 0.25 * math.log(2))
