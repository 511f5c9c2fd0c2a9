# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Distillation losses: worked values, zero for equal inputs, no gradient to the teacher, half precision, refusals."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_effsam.errors import ShapeError
from monai_effsam.losses import (
    BernoulliKlLoss,
    ClassKlLoss,
    EmbeddingMseLoss,
    EmbeddingPerceptualLoss,
    MaskedPerceptualLoss,
    ProjectedFeatures,
    PyramidFeatures,
    QualityMseLoss,
    SaliencyTransferLoss,
)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pyramid():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.ConvTranspose2d(6, 4, 2, stride=2), nn.GELU(), nn.ConvTranspose2d(4, 3, 2, stride=2), nn.GELU()
    )
    return PyramidFeatures(layers, (1, 3))


def image_network():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.Conv2d(5, 4, 3), nn.ReLU(inplace=True)
    )
    return ProjectedFeatures(layers, (0, 3), size=16)


LOSSES = {
    "mse": (EmbeddingMseLoss(), (2, 6, 4, 4)),
    "pyramid": (EmbeddingPerceptualLoss(pyramid()), (2, 6, 4, 4)),
    "projected": (EmbeddingPerceptualLoss(image_network(), (1.0, 0.5)), (2, 6, 4, 4)),
    "kl": (BernoulliKlLoss(2.0), (2, 3, 5, 5)),
    "class_kl": (ClassKlLoss(2.0), (4, 5)),
    "quality": (QualityMseLoss(), (2, 3)),
    "saliency": (SaliencyTransferLoss(), (2, 5, 5)),
    "saliency_kl": (SaliencyTransferLoss("kl", 2.0), (2, 5, 5)),
}


@pytest.fixture(params=LOSSES)
def case(request):
    """(loss, student's tensor, teacher's tensor); both at least 0, as maps are."""
    loss, shape = LOSSES[request.param]
    return loss, noise(*shape).abs(), noise(*shape, seed=1).abs()


def test_equal_inputs_have_no_loss_and_others_have_some(case):
    loss, student, teacher = case
    assert float(loss(teacher.clone(), teacher)) == pytest.approx(0, abs=1e-6)
    assert float(loss(student, teacher)) > 1e-4


def test_gradients_reach_the_student_and_never_the_teacher(case):
    loss, student, teacher = case
    student.requires_grad_()
    teacher.requires_grad_()
    loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_half_precision_stays_finite_and_close(case):
    loss, student, teacher = case
    found = loss(student.half() * 50, teacher.half() * 50)
    assert found.dtype == torch.float32
    assert torch.isfinite(found)
    assert float(loss(student.half(), teacher.half())) == pytest.approx(
        float(loss(student, teacher)), rel=0.02
    )


def test_other_shapes_are_refused(case):
    loss, student, teacher = case
    with pytest.raises(ShapeError, match="expected"):
        loss(student, teacher[:1])


@pytest.mark.parametrize("name", ["mse", "kl", "quality", "saliency"])
def test_reductions_agree(name):
    loss, shape = LOSSES[name]
    student, teacher = noise(*shape).abs(), noise(*shape, seed=1).abs()
    made = {r: type(loss)(reduction=r)(student, teacher) for r in ("none", "sum", "mean")}
    assert torch.allclose(made["none"].sum(), made["sum"])
    assert torch.allclose(made["none"].mean(), made["mean"])


def test_unrelated_normalised_embeddings_are_two_apart():
    one, two = (F.layer_norm(noise(1, 16, 16, 256, seed=s), (256,)).permute(0, 3, 1, 2) for s in (0, 1))
    assert float(EmbeddingMseLoss()(one, two)) == pytest.approx(2, abs=0.05)


def test_padding_does_not_count():
    student, teacher = torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)
    student[..., 2:, :] = 100
    valid = torch.zeros(1, 1, 16, 16)
    valid[..., :8, :] = 1
    assert float(EmbeddingMseLoss()(student, teacher, valid)) == pytest.approx(1)


@pytest.mark.parametrize(("temperature", "expected"), [(1, 0.4337808), (2, 0.4804580), (4, 0.4948769)])
def test_a_coin_and_a_surer_one(temperature, expected):
    found = BernoulliKlLoss(temperature)(torch.full((1, 1, 2, 2), 2.0), torch.zeros(1, 1, 2, 2))
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_the_divergence_is_cross_entropy_less_entropy():
    student, teacher = noise(3, 4) * 5, noise(3, 4, seed=1) * 5
    q = teacher.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(teacher, q, reduction="none")
    expected = F.binary_cross_entropy_with_logits(student, q, reduction="none") - entropy
    torch.testing.assert_close(
        BernoulliKlLoss(reduction="none")(student, teacher), expected, atol=1e-5, rtol=1e-4
    )


def test_weights_of_pixels_make_a_weighted_mean():
    student, teacher = torch.tensor([[2.0, 9.0]]), torch.zeros(1, 2)
    assert float(BernoulliKlLoss()(student, teacher, torch.tensor([[1.0, 0.0]]))) == pytest.approx(0.4337808)


def test_perceptual_maps_are_those_of_the_layers_by_hand():
    features = pyramid()
    student, teacher = noise(2, 6, 4, 4), noise(2, 6, 4, 4, seed=1)
    first = features.layers[:2]
    expected = F.mse_loss(first(student), first(teacher)) * 0.5
    expected += F.mse_loss(features.layers(student), features.layers(teacher)) * 2
    torch.testing.assert_close(EmbeddingPerceptualLoss(features, (0.5, 2))(student, teacher), expected)
    with pytest.raises(ValueError, match="3 weights for 2 feature maps"):
        EmbeddingPerceptualLoss(features, (1, 1, 1))(student, teacher)


def test_a_student_of_another_scale_is_noticed_by_an_image_network():
    loss = EmbeddingPerceptualLoss(image_network())
    teacher = noise(2, 6, 4, 4)
    assert float(loss(3 * teacher, teacher)) > 1e-2


def test_the_feature_network_is_a_frozen_copy():
    layers = nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(inplace=True))
    features = PyramidFeatures(layers, (0, 1))
    assert not any(p.requires_grad for p in features.parameters())
    assert all(p.requires_grad for p in layers.parameters())
    nn.init.zeros_(layers[0].weight)
    assert features.layers[0].weight.any()


def test_attention_transfer_by_hand():
    ones, corner = torch.ones(1, 2, 2), torch.zeros(1, 2, 2)
    corner[0, 0, 0] = 5.0
    # unit vectors (.5, .5, .5, .5) and (1, 0, 0, 0): squares .25 x 4 in all; their mean over positions is .25
    assert float(SaliencyTransferLoss()(ones, corner)) == pytest.approx(1.0)
    assert float(SaliencyTransferLoss()(3 * ones, 7 * corner)) == pytest.approx(1.0)


def test_distributions_by_hand():
    student, teacher = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[3.0, 1.0]]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(SaliencyTransferLoss("kl")(student, teacher)) == pytest.approx(expected, abs=1e-5)


def test_images_whose_teacher_sees_nothing_do_not_count():
    student, teacher = noise(2, 4, 4).abs(), noise(2, 4, 4, seed=1).abs()
    alone = SaliencyTransferLoss()(student[:1], teacher[:1])
    teacher[1] = 0
    torch.testing.assert_close(SaliencyTransferLoss()(student, teacher), alone)


def test_maps_of_another_size_are_resized_to_the_teachers():
    teacher = F.interpolate(noise(1, 1, 4, 4).abs(), size=(8, 8), mode="bilinear")[:, 0]
    student = F.interpolate(teacher[:, None], size=(16, 16), mode="bilinear")[:, 0]
    assert float(SaliencyTransferLoss()(student, teacher)) < 0.01


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BernoulliKlLoss(0), "temperature is 0, expected more than 0"),
        (lambda: SaliencyTransferLoss("cosine"), "distance is 'cosine', expected one of"),
        (lambda: SaliencyTransferLoss("kl", -1), "temperature is -1, expected more than 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def masked(size=8):
    torch.manual_seed(0)
    return MaskedPerceptualLoss(
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3)), (1,), size=size
    )


def test_masked_perceptual_is_the_distance_of_what_is_seen_through_both_masks():
    loss, picture = masked(), torch.rand(2, 3, 8, 8)
    ours, theirs = noise(2, 1, 8, 8), noise(2, 1, 8, 8, seed=1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    conv = loss.layers[0]
    seen = [F.relu(conv((picture * m.sigmoid() - mean) / std)) for m in (ours, theirs)]
    torch.testing.assert_close(loss(ours, theirs, picture), (seen[0] - seen[1]).square().mean())
    assert loss(theirs, theirs, picture) == 0


def test_masked_perceptual_sees_nothing_where_the_picture_is_black():
    loss = masked()
    assert loss(noise(1, 1, 8, 8), noise(1, 1, 8, 8, seed=1), torch.zeros(1, 3, 8, 8)) == 0


def test_masked_perceptual_trains_the_student_only():
    loss = masked(size=6)
    ours, theirs = noise(1, 1, 4, 4).requires_grad_(), noise(1, 1, 4, 4, seed=1).requires_grad_()
    loss(ours, theirs, torch.rand(1, 3, 16, 16)).backward()
    assert ours.grad.abs().sum() > 0
    assert theirs.grad is None
    assert not any(p.requires_grad for p in loss.parameters())


@pytest.mark.parametrize("shapes", [((1, 1, 4, 4), (1, 1, 5, 5)), ((1, 2, 4, 4),) * 2, ((2, 1, 4, 4),) * 2])
def test_masked_perceptual_refuses_other_shapes(shapes):
    with pytest.raises(ShapeError, match="expected"):
        masked()(*(torch.zeros(s) for s in shapes), torch.zeros(1, 3, 4, 4))
