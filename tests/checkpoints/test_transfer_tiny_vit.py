# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A modality's controller goes with its name when the target table changes."""

import pytest
import torch

from monai_effsam.checkpoints.transfer import transfer_weights
from monai_effsam.networks.nets.esp_medsam import EspMedSam
from monai_effsam.targets import Target


def table(*modalities):
    return [Target(f"of_{m}", m, i + 1, (0, 0, 0), "", "") for i, m in enumerate(modalities)]


@pytest.mark.parametrize(
    "encoder", [{"name": "tiny_vit", "release_init": True}, {"name": "timm", "model": "mobilenetv2_100"}]
)
@torch.no_grad()
def test_masks_of_a_kept_modality_stay_the_same(encoder):
    torch.manual_seed(0)
    source = EspMedSam(encoder, table("ct", "mr")).eval()
    for name, parameter in source.named_parameters():
        if "expert" in name or "token" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    own = EspMedSam(encoder, table("xray", "mr")).eval()
    filled, _ = transfer_weights(own.state_dict(), own.targets, source.state_dict(), source.targets)
    own.load_state_dict(filled)
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(own(image, 1)[:, 1], source(image, 1)[:, 1])


@torch.no_grad()
def test_a_moved_controller_is_found_by_its_modality():
    source, own = (
        EspMedSam({"name": "tiny_vit", "release_init": True}, table(*names)).eval()
        for names in (["ct", "mr"], ["mr", "ct"])
    )
    filled, missed = transfer_weights(own.state_dict(), own.targets, source.state_dict(), source.targets)
    own.load_state_dict(filled)
    image = torch.randn(1, 3, 64, 64)
    assert missed == []
    torch.testing.assert_close(own(image, 0)[:, 0], source(image, 1)[:, 1], rtol=0, atol=1e-6)
