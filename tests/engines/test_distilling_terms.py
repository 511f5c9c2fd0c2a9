# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Logits and saliency of a student against those of its teacher: nothing where they are one, gradients where not."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from monai_effsam.data.distilling import DistillationBatches, ViewBatch
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.engines.distillation import DistillationStep, held_out_errors
from monai_effsam.engines.distilling_recipe import DistillationRecipe
from monai_effsam.engines.distilling_terms import TEACHER_MAPS, build_terms, watched_encoder
from monai_effsam.engines.teacher import load_teacher
from monai_effsam.engines.teacher_maps import global_attention, rollout_map
from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.losses.saliency_maps import attention_rollout
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ImageSpec

KINDS = ("activation", "grad_cam", "input_gradient", "rollout", "token")
SPEC = ImageSpec(64)
PLAIN = DistillationRecipe(teacher="", encoder={}, spec={})


@pytest.fixture(scope="module")
def networks():
    """(student, teacher); the student has the teacher's decoder, as after `build_student`."""
    torch.manual_seed(0)
    vit = {"name": "sam_vit", "size": 64, "width": 32, "depth": 2, "heads": 2, "global_blocks": [1]}
    teacher = PromptableSam(vit, prompt_size=128, mlp_dim=32).eval().requires_grad_(False)
    student = PromptableSam({"name": "timm", "model": "mobilenetv2_035", "skips": ()}, mlp_dim=32)
    parts = {k: v for k, v in teacher.state_dict().items() if not k.startswith("image_encoder.")}
    student.load_state_dict(parts, strict=False)
    return student, teacher


def a_batch(teacher, seed=0):
    torch.manual_seed(seed)
    image = torch.randn(2, 3, 64, 64)
    label = torch.zeros(2, 1, 64, 64)
    label[:, :, 16:40, 8:50] = 1
    with torch.no_grad():
        target = teacher.encode(image).embedding
    grid = target.shape[-2:]
    return ViewBatch(
        image,
        torch.zeros(2, dtype=torch.int64),
        target,
        torch.ones(2, 1, *grid),
        label,
        torch.ones(2, 1, dtype=torch.bool),
        torch.rand(2, *grid),
    )


def recipe(**fields):
    return dataclasses.replace(PLAIN, **fields)


def terms_of(networks, **fields):
    return build_terms(*networks, SPEC, recipe(**fields))


@pytest.mark.parametrize("kind", KINDS)
def test_every_term_reaches_the_encoder_and_nothing_else(networks, kind):
    student, teacher = copy.deepcopy(networks)
    before = copy.deepcopy(teacher.state_dict())
    terms = build_terms(student, teacher, SPEC, recipe(logits=0.5, saliency=kind, saliency_weight=2.0))
    step = DistillationStep(student.image_encoder, mse_weight=0.0, terms=terms).train()
    found = step(a_batch(teacher), 0)
    assert set(found) == {"loss", "mse", "logits", "saliency"}
    assert float(found["loss"].detach()) == pytest.approx(
        float(0.5 * found["logits"] + 2 * found["saliency"])
    )
    assert min(float(found[name]) for name in ("logits", "saliency")) > 0
    found["loss"].backward()
    reached = {
        name.split(".")[0] for name, p in step.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert reached == {"encoder"}
    assert not terms.teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_saliency_alone_moves_the_encoder(networks, kind):
    student, teacher = copy.deepcopy(networks)
    terms = build_terms(student, teacher, SPEC, recipe(saliency=kind))
    step = DistillationStep(student.image_encoder, mse_weight=0.0, terms=terms).train()
    step(a_batch(teacher), 0)["loss"].backward()
    assert (
        sum(float(p.grad.abs().sum()) for p in student.image_encoder.parameters() if p.grad is not None) > 0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_held_out_is_judged_by_what_the_stage_learns(networks, kind):
    student, teacher = copy.deepcopy(networks)
    terms = build_terms(student, teacher, SPEC, recipe(logits=0.5, saliency=kind, saliency_weight=2.0))
    step = DistillationStep(student.image_encoder, mse_weight=0.0, terms=terms).train()
    average = copy.deepcopy(student.image_encoder).requires_grad_(False)  # as the handler of MONAI keeps it
    found = held_out_errors(step, average, [a_batch(teacher)])
    assert set(found) == {"loss", "mse", "cosine", "logits", "saliency"}
    assert found["loss"] == pytest.approx(0.5 * found["logits"] + 2 * found["saliency"])
    alone = step.eval()(a_batch(teacher), 0)
    assert found["logits"] == pytest.approx(float(alone["logits"]), rel=1e-4)


@pytest.mark.parametrize("kind", ["grad_cam", "token"])
def test_a_student_that_is_its_teacher_has_no_loss(networks, kind):
    teacher = networks[1]
    terms = build_terms(teacher, teacher, SPEC, recipe(logits=1.0, saliency=kind))
    batch = a_batch(teacher)
    seen = watched_encoder(teacher.image_encoder, batch, kind)
    seen = seen._replace(embedding=seen.embedding.detach().requires_grad_())
    assert [float(v.detach()) for v in terms(seen, batch).values()] == pytest.approx([0, 0], abs=1e-6)


def test_padding_has_no_say(networks):
    terms = terms_of(networks, logits=1.0, saliency="activation")
    batch = a_batch(networks[1])
    batch.valid[:, :, 2:] = 0
    seen = watched_encoder(networks[0].image_encoder.eval(), batch, "activation")
    seen.energy[:, 2:] = 99
    before = float(terms(seen, batch)["saliency"].detach())
    batch.saliency[:, 2:] = 50
    assert float(terms(seen, batch)["saliency"].detach()) == pytest.approx(before)


def test_boxes_lie_in_the_students_frame_whatever_the_teachers_is(networks):
    terms = terms_of(networks, logits=1.0)
    assert networks[1].prompt_size == 128
    assert [one.prompt_frame(4, 4) for one in (terms.student, terms.teacher)] == [(64, 64)] * 2


def test_what_is_not_wanted_or_cannot_be_is_said(networks):
    assert terms_of(networks) is None
    with pytest.raises(UnknownNameError, match="Did you mean 'token'"):
        terms_of(networks, saliency="tokens")
    alone = EspMedSam(encoder={"name": "timm", "model": "mobilenetv2_035", "embed_channels": 32})
    with pytest.raises(UsageError, match="need a promptable teacher"):
        build_terms(networks[0], alone, SPEC, recipe(logits=1.0))
    with (
        pytest.raises(UsageError, match="has no block that attends everywhere"),
        global_attention(networks[0].image_encoder),
    ):
        pass


def test_rollout_by_heads_is_rollout_of_the_whole_attention(networks):
    torch.manual_seed(0)
    encoder = copy.deepcopy(networks[1].image_encoder)
    for block in encoder.blocks:
        torch.nn.init.normal_(block.attn.rel_pos_h)
        torch.nn.init.normal_(block.attn.qkv.weight)
    with torch.no_grad(), global_attention(encoder) as heard:
        encoder(torch.randn(2, 3, 64, 64), None)
    (attn, tokens) = heard[0]
    with torch.no_grad():
        found = rollout_map(heard)
        query, key, _ = attn.qkv(tokens).reshape(2, 16, 3, 2, 16).permute(2, 0, 3, 1, 4)
        weight = (query * attn.scale) @ key.transpose(-2, -1)
        # the distance of two cells, in rows then columns, chooses the vectors that are added
        place = torch.arange(4)
        apart = place[:, None] - place[None] + 3
        parted = query.reshape(2, 2, 4, 4, 16)
        rows = torch.einsum("bhyxc,ykc->bhyxk", parted, attn.rel_pos_h[apart])
        columns = torch.einsum("bhyxc,xkc->bhyxk", parted, attn.rel_pos_w[apart])
        weight = weight + (rows[..., :, None] + columns[..., None, :]).reshape(2, 2, 16, 16)
        expected = attention_rollout([weight.softmax(-1)], (4, 4))
    assert float(found.amax()) == 1
    torch.testing.assert_close(found, expected / expected.amax((1, 2), keepdim=True))


@pytest.mark.parametrize("kind", TEACHER_MAPS)
def test_batches_bring_the_teachers_map(kind, tmp_path):
    teacher = load_teacher("random", keep=[TEACHER_MAPS[kind]])
    label = np.zeros((40, 60), np.uint8)
    label[10:30, 5:25] = 1
    rgb = np.random.RandomState(0).randint(0, 255, (2, 40, 60, 3)).astype(np.uint8)
    labels = (label, 0 * label)
    pictures = [
        LabelledSlice(one, two, "endoscopy", "s", "1", (True,)) for one, two in zip(rgb, labels, strict=True)
    ]
    teacher.open_cache(tmp_path / "cache")
    batches = DistillationBatches(
        pictures, {"": SPEC}, teacher, batch=2, shuffle=False, saliency=TEACHER_MAPS[kind]
    )
    fresh, kept = next(iter(batches)), next(iter(batches))
    assert fresh.saliency.shape == (2, 4, 4)
    assert float(fresh.saliency.min()) >= 0 < float(fresh.saliency.std())
    torch.testing.assert_close(fresh.saliency, kept.saliency, rtol=2e-3, atol=2e-3)
    other = DistillationBatches(pictures, {"": SPEC}, teacher, batch=2, shuffle=False)
    assert next(iter(other)).saliency.numel() == 0
