# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""KD SAM's first stage: its terms, their balance, the readings of the perceptual one, and what padding has to say."""

import copy

import pytest
import torch
from torch import nn

from monai_effsam.data.distilling import ViewBatch
from monai_effsam.engines.distillation import DistillationStep, TermBalance, held_out_errors
from monai_effsam.engines.perceptual import build_perceptual, label_boxes
from monai_effsam.engines.teacher import load_teacher
from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.networks.encoders import Encoded, build_encoder
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec

SPEC = ImageSpec(64)
ENCODER = {"name": "timm_pyramid", "model": "mobilenetv3_small_050"}


@pytest.fixture(scope="module")
def teacher():
    return load_teacher("random").network


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """A narrow VGG's weights."""
    torch.manual_seed(0)
    state = {}
    for index, inner, outer in (
        (0, 3, 4),
        (2, 4, 4),
        (5, 4, 6),
        (7, 6, 6),
        (10, 6, 8),
        (12, 8, 8),
        (14, 8, 8),
    ):
        state |= {f"features.{index}.weight": torch.randn(outer, inner, 3, 3) / 5}
        state |= {f"features.{index}.bias": torch.zeros(outer)}
    file = tmp_path_factory.mktemp("vgg") / "vgg.pth"
    torch.save(state, file)
    return file


def batch(seed=0, count=2, channels=256, modality=None, label=True):
    g = torch.Generator().manual_seed(seed)
    places = torch.zeros(count, 1 if label else 0, 64, 64)
    places[:, :, 16:40, 8:50] = 1
    return ViewBatch(
        torch.randn(count, 3, 64, 64, generator=g),
        torch.zeros(count, dtype=torch.int64) if modality is None else torch.tensor(modality),
        torch.randn(count, channels, 4, 4, generator=g),
        torch.ones(count, 1, 4, 4),
        places,
        torch.ones(count, places.shape[1], dtype=torch.bool),
    )


class Given(nn.Module):
    """An encoder that gives what it is told."""

    def __init__(self, embedding):
        super().__init__()
        self.embedding = nn.Parameter(embedding)

    def forward(self, image, modality):
        return Encoded(self.embedding[: len(image)])


def numbers(terms):
    return {name: float(value.detach()) for name, value in terms.items()}


def errors(encoder, batches):
    return held_out_errors(DistillationStep(encoder), encoder, batches)


def step_of(kind, teacher, vgg, embedding, weight=None):
    perceptual = build_perceptual(kind, teacher, SPEC, vgg)
    return DistillationStep(Given(embedding), perceptual, weight).train()


@pytest.mark.parametrize("kind", ["none", "pyramid", "projected", "masked"])
def test_a_student_that_is_its_teacher_has_no_loss(kind, teacher, vgg):
    one = batch()
    terms = step_of(kind, teacher, vgg, one.target.clone(), weight=1.0)(one, 0)
    assert numbers(terms) == dict.fromkeys(terms, 0.0)


@pytest.mark.parametrize("kind", ["pyramid", "projected", "masked"])
def test_both_raw_terms_are_told_and_weigh_alike_on_the_first_batch(kind, teacher, vgg):
    step = step_of(kind, teacher, vgg, batch(1).target)
    first = numbers(step(batch(), 0))
    assert first["mse"] > 0
    assert first["perceptual"] > 0
    assert first["loss"] == pytest.approx(2 * first["mse"], rel=1e-4)
    weight = first["mse"] / first["perceptual"]
    second = numbers(step(batch(2), 1))
    assert second["loss"] == pytest.approx(second["mse"] + weight * second["perceptual"], rel=1e-4)


def test_a_weight_that_is_given_stays(teacher, vgg):
    terms = numbers(step_of("pyramid", teacher, vgg, batch(1).target, weight=0.25)(batch(), 0))
    assert terms["loss"] == pytest.approx(terms["mse"] + 0.25 * terms["perceptual"])


def test_the_balance_survives_a_checkpoint():
    balance = TermBalance()
    assert balance(torch.tensor(3.0), torch.tensor(2.0)) == 1.5
    again = TermBalance()
    again.load_state_dict(balance.state_dict())
    assert again(torch.tensor(9.0), torch.tensor(1.0)) == 1.5


def test_pictures_that_are_only_watched_do_not_set_the_balance(teacher, vgg):
    step = step_of("pyramid", teacher, vgg, batch(1).target)
    found = held_out_errors(step, Given(batch(3).target), [batch(), batch(2, count=1)])
    assert step.balance.weight.isnan()
    assert found["loss"] == pytest.approx(2 * found["mse"], rel=1e-4)
    each = [
        held_out_errors(step, Given(batch(3).target[:n]), [b]) for n, b in ((2, batch()), (1, batch(2, 1)))
    ]
    assert found["perceptual"] == pytest.approx((2 * each[0]["perceptual"] + each[1]["perceptual"]) / 3)


@pytest.mark.parametrize("kind", ["none", "pyramid", "projected"])
def test_padding_has_no_say(kind, teacher, vgg):
    one = batch()
    one.valid[:, :, :, 2:] = 0
    step = step_of(kind, teacher, vgg, batch(1).target, weight=1.0)
    before = numbers(step(one, 0))["loss"]
    one.target[:, :, :, 2:] += 100
    if (
        kind == "projected"
    ):  # the teacher's extremes set the scale, also those where nothing is valid: so it masks
        one.target[:, :, :, 2:] = 0
    assert numbers(step(one, 1))["loss"] == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("kind", ["pyramid", "projected", "masked"])
def test_the_gradient_reaches_the_student_alone(kind, teacher, vgg):
    before = copy.deepcopy(teacher.state_dict())
    step = step_of(kind, teacher, vgg, batch(1).target)
    step(batch(), 0)["loss"].backward()
    assert step.encoder.embedding.grad.abs().sum() > 0
    assert [n for n, p in step.named_parameters() if p.grad is not None] == ["encoder.embedding"]
    assert not any(m.training for m in step.perceptual.modules())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_masks_are_those_of_the_teachers_decoder(teacher, vgg):
    one = batch()
    inner = build_perceptual("masked", teacher, SPEC, vgg).decoder
    boxes = torch.tensor([[[8.0, 16.0, 50.0, 40.0]]] * 2)
    found = inner.decode(Encoded(one.target), boxes=boxes)
    theirs = teacher.decode(Encoded(one.target), boxes=boxes)
    torch.testing.assert_close(found.mask_logits, theirs.mask_logits)
    assert label_boxes(one.label, 64).tolist() == boxes[:, 0].tolist()
    assert label_boxes(one.label[:, :0], 64).tolist() == [[16.0, 16.0, 48.0, 48.0]] * 2


def test_masks_can_be_compared_without_labels(teacher, vgg):
    terms = step_of("masked", teacher, vgg, batch(1).target)(batch(label=False), 0)
    assert float(terms["perceptual"]) > 0


def test_a_batch_may_mix_modalities():
    torch.manual_seed(0)
    encoder = build_encoder("timm", model="mobilenetv3_small_050", modalities=2, embed_channels=32, heads=2)
    for p in encoder.experts.parameters():
        nn.init.normal_(p, std=0.3)
    encoder.eval()
    mixed = batch(count=2, channels=32, modality=[0, 1])
    with torch.no_grad():
        both = errors(encoder, [mixed])["mse"]
        alone = [
            errors(encoder, [ViewBatch(*(getattr(mixed, f)[row : row + 1] for f in ViewBatch.__slots__))])[
                "mse"
            ]
            for row in range(2)
        ]
    assert both == pytest.approx(sum(alone) / 2, rel=1e-4)
    DistillationStep(encoder)(mixed, 0)["loss"].backward()


def test_errors_of_unrelated_embeddings_of_unit_energy_are_two():
    g = torch.Generator().manual_seed(0)
    target, other = (torch.randn(2, 256, 16, 16, generator=g) for _ in range(2))
    one = batch()
    unrelated = ViewBatch(one.image, one.modality, target, torch.ones(2, 1, 16, 16), one.label, one.known)
    found = errors(Given(other), [unrelated])
    assert found["mse"] == pytest.approx(2, rel=0.02)
    assert found["cosine"] == pytest.approx(0, abs=0.01)
    same = {"loss": 0, "mse": 0, "cosine": 1}
    assert errors(Given(target), [unrelated]) == pytest.approx(same, abs=1e-6)


def test_what_a_perceptual_term_needs_is_asked_for(teacher, tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'pyramid'"):
        build_perceptual("piramid", teacher, SPEC)
    with pytest.raises(UsageError, match="needs the weights of a VGG"):
        build_perceptual("projected", teacher, SPEC)
    esp = EspMedSam({"name": "timm", "model": "mobilenetv3_small_050", "heads": 2})
    with pytest.raises(UsageError, match="needs the decoder of a promptable teacher"):
        build_perceptual("pyramid", esp, SPEC)
