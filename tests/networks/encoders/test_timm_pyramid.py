# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Any timm trunk as a student: the trunks that are promised, the pyramid redone by hand, and what is refused."""

import pytest
import torch
from torch.nn import functional as F

from monai_effsam.errors import SpecError
from monai_effsam.networks.encoders import build_encoder

MODALITY = torch.tensor([0])
TRUNKS = [
    "tf_efficientnet_lite0",
    "repvit_m0_9",
    "efficientvit_b0",
    "mobilenetv4_conv_small",
    "mobilenetv2_100",
]


def small(**options):
    torch.manual_seed(0)
    return build_encoder(
        "timm_pyramid", **{"model": "mobilenetv3_small_050", "embed_channels": 16, **options}
    )


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("model", TRUNKS)
def test_these_trunks_are_students_with_one_line(model, stride):
    encoder = build_encoder("timm_pyramid", model=model, stride=stride).eval()
    with torch.no_grad():
        found = encoder(torch.rand(1, 3, 96, 64), MODALITY).embedding
    assert found.shape == (1, 256, 96 // stride, 64 // stride)
    energy = found.square().mean(1)  # SAM's neck gives every position unit energy
    torch.testing.assert_close(energy, torch.ones_like(energy), rtol=0.02, atol=0)


def test_maps_are_summed_from_coarse_to_fine():
    encoder = small(stride=8).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        fine, middle, coarse = encoder.trunk(image)[2:]
        by_hand = encoder.lateral[0](coarse).repeat_interleave(2, 2).repeat_interleave(2, 3)
        by_hand = (encoder.lateral[1](middle) + by_hand).repeat_interleave(2, 2).repeat_interleave(2, 3)
        by_hand = encoder.lateral[2](fine) + by_hand
        first, conv, last = encoder.neck
        by_hand = last(F.conv2d(first(by_hand), conv.weight, padding=1))
        torch.testing.assert_close(encoder(image, MODALITY).embedding, by_hand)


@pytest.mark.parametrize("train_norms", [False, True])
def test_batch_statistics_follow_the_batches_only_if_asked(train_norms):
    encoder = small(train_norms=train_norms).train()
    before = {k: v.clone() for k, v in encoder.named_buffers() if "running" in k}
    encoder(torch.randn(2, 3, 64, 64), MODALITY)
    moved = any(not torch.equal(v, before[k]) for k, v in encoder.named_buffers() if k in before)
    assert moved == train_norms


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model": "repvit_m0_9", "stride": 2},
            r"maps at strides \[4, 8, 16, 32\], expected some from 2 to 32",
        ),
        ({"stride": 12}, "expected some from 12 to 32"),
        ({"modalities": 1}, "modalities is 1, expected 0"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(SpecError, match=message):
        small(**options)
