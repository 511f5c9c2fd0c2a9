# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""KD SAM's encoder: counts, the grid at any stride, BatchNorm that stays, and what is refused."""

import pytest
import torch

from monai_effsam.errors import SpecError
from monai_effsam.networks.encoders import build_encoder
from monai_effsam.networks.nets import PromptableSam

MODALITY = torch.tensor([0])


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("refinements", "expected"), [(1, 24_623_168), (4, 26_394_176)])
def test_kd_sam_has_the_counts_of_the_necks(refinements, expected):
    with torch.device("meta"):
        encoder = build_encoder("timm_sam_neck", model="resnet50", refinements=refinements)
        network = PromptableSam(encoder)
    assert count(encoder.trunk) == 23_508_032
    assert count(encoder) == expected
    assert count(network) == expected + 4_064_560  # segment-anything's prompt encoder and mask decoder


@pytest.mark.parametrize(
    ("options", "grid"), [({}, 4), ({"stride": 32}, 2), ({"stride": 8}, 8), ({"level": 3}, 4)]
)
def test_the_embedding_has_the_stride_that_is_asked_for(options, grid):
    encoder = build_encoder("timm_sam_neck", model="resnetv2_50", embed_channels=16, **options).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 64, 64), MODALITY).embedding.shape == (1, 16, grid, grid)


def test_the_stride_16_map_needs_no_last_stage():
    with torch.device("meta"):
        whole, less = (build_encoder("timm_sam_neck", model="resnetv2_50", level=level) for level in (-1, 3))
    assert count(less.trunk) < 9e6 < count(whole.trunk)


@pytest.mark.parametrize("train_norms", [False, True])
def test_batch_statistics_follow_the_batches_only_if_asked(train_norms):
    encoder = build_encoder("timm_sam_neck", model="mobilenetv3_small_050", train_norms=train_norms).train()
    before = {k: v.clone() for k, v in encoder.named_buffers() if "running" in k}
    encoder(torch.randn(2, 3, 64, 64), MODALITY)
    moved = any(not torch.equal(v, before[k]) for k, v in encoder.named_buffers() if k in before)
    assert moved == train_norms


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 64}, "stride 32 at level -1, expected a multiple of the embedding's 64"),
        ({"modalities": 2}, "modalities is 2, expected 0"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(SpecError, match=message):
        build_encoder("timm_sam_neck", model="mobilenetv3_small_050", **options)


def test_a_pre_activation_trunk_ends_in_its_norm():
    encoder = build_encoder(
        "timm_sam_neck", model="resnetv2_50", level=3, pre_activation=True, stride=8
    ).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        (found,) = encoder.trunk(image)
        assert encoder(image, MODALITY).embedding.shape == (1, 256, 8, 8)
    assert found.shape == (1, 1024, 4, 4)
    assert found.min() >= 0  # behind the activation; the raw sum of a stage has either sign
    assert isinstance(encoder.trunk.stem.norm, torch.nn.BatchNorm2d)
    assert not encoder.train().trunk.norm.training


def test_a_trunk_that_is_no_pre_activation_resnet_is_refused():
    with pytest.raises(SpecError, match="no pre-activation ResNet"):
        build_encoder("timm_sam_neck", model="mobilenetv3_small_050", level=3, pre_activation=True)
