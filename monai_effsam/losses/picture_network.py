# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Frozen layers of a network whose maps a loss compares, and of one that is shown pictures."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["PictureNetwork", "frozen_layers", "tapped_maps"]


class PictureNetwork(nn.Module):
    """Maps of a frozen image network; base of the losses that show it something.

    Args:
        layers: of the image network, such as torchvision's `vgg19().features`; a frozen copy is kept.
        taps: indices of the layers whose output counts; relu2_2 and relu3_3 in VGG-19 are 8 and 15.
        size: side of the picture that it is shown [px].
        mean: that the network's pictures are normalised with.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: nn.Sequential,
        taps: Sequence[int] = (8, 15),
        *,
        size: int = 128,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        self.layers = frozen_layers(layers, max(taps) + 1)
        self.taps, self.size = frozenset(taps), size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def seen(self, picture: Tensor) -> list[Tensor]:
        """(B, 3, size, size), 0..1 -> one map a tap."""
        return tapped_maps(self.layers, (picture - self.mean) / self.std, self.taps)


def frozen_layers(layers: nn.Sequential, count: int) -> nn.Sequential:
    """A copy of the first layers, in eval mode and without gradients of their own.

    Args:
        layers: of an image network.
        count: of them.
    """
    copied = nn.Sequential(*copy.deepcopy(list(layers)[:count]))
    for layer in copied:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # it would overwrite the map that was tapped before it
    copied.requires_grad_(False)
    copied.eval()
    return copied


def tapped_maps(layers: nn.Sequential, x: Tensor, taps: frozenset[int]) -> list[Tensor]:
    """Outputs of those layers whose index is a tap, in order.

    Args:
        layers: run one after the other.
        x: what the first is given.
        taps: indices.
    """
    maps = []
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in taps:
            maps.append(x)
    return maps
