# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A small self-prompting network over a convolutional encoder."""

import pytest
import torch

from monai_effsam.networks.nets import EspMedSam
from monai_effsam.targets import Target

TARGETS = (
    Target("liver", "ct", 17, (0, 0, 0), "", ""),
    Target("spleen", "ct", 12, (0, 0, 0), "", ""),
    Target("polyp", "endoscopy", 1, (0, 0, 0), "", ""),
)


@pytest.fixture(scope="session")
def make_small():
    """A function: options -> network in eval mode, repeatable weights, experts and calibration not neutral."""

    def make(**options):
        torch.manual_seed(0)
        encoder = {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2}
        decoder = {"mlp_dim": 32, "hyper_dim": 16, "channels": (16, 8, 8)}
        network = EspMedSam(encoder, TARGETS, **{"decoder": decoder, **options}).eval()
        for name, parameter in network.named_parameters():
            if "experts" in name or name.endswith("token_bias"):
                torch.nn.init.normal_(parameter, std=0.2)
        return network

    return make


@pytest.fixture
def small(make_small):
    """A network that a test may change."""
    return make_small()
