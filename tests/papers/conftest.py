# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Small ways to ESP-MedSAM networks of chosen modalities and options."""

import pytest
import torch

from monai_effsam.networks.nets.esp_medsam import EspMedSam
from monai_effsam.targets import Target


def _table(rows):
    return [Target(f"target_{i}", name, i + 1, (0, 0, 0), "", "") for i, name in enumerate(rows)]


@pytest.fixture(scope="session")
def table():
    """A function: modality name of each target -> target table."""
    return _table


@pytest.fixture(scope="session")
def build():
    """A function: modality names, one a target, and options -> network in eval mode, repeatable weights."""

    def make(rows, *, controllers=None, device="cpu", with_classifier=False, **options):
        torch.manual_seed(0)
        encoder = {"name": "tiny_vit", "release_init": True, "with_classifier": with_classifier}
        if controllers is not None:
            encoder["modalities"] = controllers
        with torch.device(device):
            return EspMedSam(encoder, _table(rows), **options).eval()

    return make
