# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""TiC on a timm network's first layers: maps, weights that are taken over, what is refused."""

import pytest
import torch

from monai_effsam.checkpoints.classifier_file import build_classifier
from monai_effsam.errors import ShapeError, SpecError, WeightsError
from monai_effsam.networks.blocks import fold_tic_norms
from monai_effsam.networks.encoders.hybrid_tic_trunk import HybridTicTrunk
from monai_effsam.networks.foreign import import_timm
from monai_effsam.networks.nets.tic import TicClassifier

STEM = "tf_mobilenetv3_small_minimal_100"


@pytest.fixture
def whole():
    """The timm network of the stem, with norms that have seen something."""
    torch.manual_seed(0)
    network = import_timm().create_model(STEM, pretrained=False, num_classes=0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


def test_maps_have_the_channels_and_strides_that_are_told_at_any_size():
    trunk = HybridTicTrunk(STEM, width=32, depth=2, head_channels=8).eval()
    for height, width in ((64, 64), (96, 72), (50, 61)):
        maps = trunk(torch.randn(2, 3, height, width))
        assert [m.shape[1] for m in maps] == list(trunk.channels)
        sides = [(-(-height // s), -(-width // s)) for s in trunk.strides]
        assert [tuple(m.shape[2:]) for m in maps] == sides


def test_a_stem_that_is_taken_over_gives_the_maps_of_its_network(whole):
    trunk = HybridTicTrunk(STEM, width=32, head_channels=8).eval()
    image = torch.randn(1, 3, 64, 64)
    wanted = whole.forward_intermediates(image, indices=trunk.stem.places, intermediates_only=True)
    before = trunk(image)[:3]
    assert not torch.allclose(before[2], wanted[2], atol=1e-3)
    trunk.take_stem(whole)
    for found, there in zip(trunk(image)[:3], wanted, strict=True):
        torch.testing.assert_close(found, there, atol=1e-4, rtol=1e-3)


def test_stem_and_blocks_learn_together_and_the_deeper_layers_are_gone(whole):
    network = TicClassifier(3, stem=STEM, width=32, head_channels=8)
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    stem = sum(p.numel() for p in network.trunk.stem.parameters())
    assert stem < sum(p.numel() for p in whole.parameters()) / 2


def test_the_stem_is_one_function_in_training_and_inference():
    trunk = HybridTicTrunk(STEM, width=32, head_channels=8)
    image = torch.randn(2, 3, 64, 64)
    assert torch.equal(trunk.train()(image)[2], trunk.eval()(image)[2])


def test_folded_norms_change_nothing():
    torch.manual_seed(1)
    network = TicClassifier(4, stem=STEM, width=32, head_channels=8)
    network.train()(torch.randn(8, 3, 64, 64))  # statistics that are not those of the start
    image = torch.randn(2, 3, 64, 64)
    plain = network.eval()(image)
    torch.testing.assert_close(fold_tic_norms(network)(image), plain, atol=1e-5, rtol=1e-4)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"width is 30 .* expected multiples of 8"):
        HybridTicTrunk(STEM, width=30, head_channels=8)
    with pytest.raises(SpecError, match=r"expected \[4, 8, 16\] among them"):
        HybridTicTrunk("vit_tiny_patch16_224")
    with pytest.raises(ShapeError, match=r"expected \(B, 3, H, W\)"):
        HybridTicTrunk(STEM, width=32, head_channels=8)(torch.randn(1, 1, 64, 64))
    (tmp_path / "stem.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=r"stem\.safetensors: is no readable safetensors file"):
        build_classifier(
            {"stem": STEM, "width": 32, "head_channels": 8}, 3, stem=tmp_path / "stem.safetensors"
        )
