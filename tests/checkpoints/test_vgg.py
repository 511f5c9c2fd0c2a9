# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""VGG layers from a file: torchvision's indices, whatever the file has, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from monai_effsam.checkpoints.vgg import load_vgg
from monai_effsam.errors import WeightsError

PLAN = [(0, 3, 4), (2, 4, 4), (5, 4, 6), (7, 6, 6), (10, 6, 8), (12, 8, 8), (14, 8, 8)]
"""(index, in, out) of VGG-16's first convolutions, narrow."""


@pytest.fixture
def weights():
    torch.manual_seed(0)
    state = {}
    for index, inner, outer in PLAN:
        state |= {f"features.{index}.weight": torch.randn(outer, inner, 3, 3)}
        state |= {f"features.{index}.bias": torch.randn(outer)}
    return state


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_layers_stand_where_torchvision_has_them(weights, tmp_path, ending):
    file = tmp_path / f"vgg.{ending}"
    save_file(weights, file) if ending == "safetensors" else torch.save(weights, file)
    layers = load_vgg(file)
    kinds = "".join({nn.Conv2d: "c", nn.ReLU: "r", nn.MaxPool2d: "p"}[type(layer)] for layer in layers)
    assert kinds == "crcrpcrcrpcrcrcr"
    torch.testing.assert_close(layers[10].weight, weights["features.10.weight"])
    image = torch.rand(1, 3, 8, 8)
    assert layers(image).shape == (1, 8, 2, 2)


@pytest.mark.data
def test_the_layers_at_hand_are_vgg_19s(shared):
    layers = load_vgg(shared / "weights" / "vgg19_in1k_features_to_conv3_4.safetensors", 18)
    assert [layers[i].out_channels for i in (0, 2, 5, 7, 10, 12, 14, 16)] == [64] * 2 + [128] * 2 + [256] * 4


def test_other_files_are_refused(weights, tmp_path):
    few = tmp_path / "few.safetensors"
    save_file({k: v for k, v in weights.items() if k.startswith(("features.0", "features.2"))}, few)
    with pytest.raises(WeightsError, match="has 4 layers of a VGG, expected 16"):
        load_vgg(few)
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    with pytest.raises(WeightsError, match="no readable safetensors"):
        load_vgg(tmp_path / "noise.safetensors")
    with pytest.raises(WeightsError, match="no readable safetensors"):
        load_vgg(tmp_path / "absent.safetensors")
