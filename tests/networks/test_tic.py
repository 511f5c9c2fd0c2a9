# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""TiC networks: sizes, any image, training of a few steps."""

import pytest
import torch
import torch.nn.functional as F

from monai_effsam.errors import SpecError
from monai_effsam.networks.nets import TicClassifier, tic_features


@pytest.mark.parametrize(
    ("size", "count", "head"),
    [("ti", 3_609_432, 257_000), ("s", 13_881_032, 513_000), ("b", 52_109_368, 769_000)],
)
def test_parameters_are_those_published_with_the_sizes(size, count, head):
    with torch.device("meta"):
        network = TicClassifier(1000, size)
    assert sum(p.numel() for p in network.parameters()) == count
    assert sum(p.numel() for p in network.head.parameters()) == head


def test_nano_is_small():
    assert sum(p.numel() for p in TicClassifier(1000).parameters()) <= 1_500_000


@torch.no_grad()
def test_any_image_gets_an_answer():
    network = TicClassifier(7, in_channels=1).eval()
    for size in ((1, 1), (160, 96), (130, 131)):
        image = torch.rand(2, 1, *size)
        assert network(image).shape == (2, 7)
        torch.testing.assert_close(network(image)[1:], network(image[1:]))
        torch.testing.assert_close(network(image), network.head(network.features(image)))
    assert [m.shape[1] for m in tic_features(in_channels=1)(image)] == [24, 48, 96, 192]


def test_learns_to_tell_stripes_from_spots():
    torch.manual_seed(0)
    line = torch.arange(32).div(4, rounding_mode="floor") % 2
    kinds = torch.stack([line.expand(32, 32), line[:, None].expand(32, 32), line ^ line[:, None]]).float()[
        :, None
    ]
    network = TicClassifier(3, in_channels=1).train()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    answer = torch.arange(3).repeat(4)
    for _ in range(12):
        image = kinds[answer] + 0.3 * torch.randn(12, 1, 32, 32)
        loss = F.cross_entropy(network(image), answer)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(p.grad is not None for p in network.parameters())
    network.eval()
    found = network(kinds[answer] + 0.3 * torch.randn(12, 1, 32, 32)).argmax(1)
    assert (found == answer).float().mean() > 0.9


def test_no_class_is_refused():
    with pytest.raises(SpecError, match="Count the classes"):
        TicClassifier(0)
