# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The first layers of a VGG from a file, as perceptual losses want them."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from monai_effsam.checkpoints.reading import read_plain
from monai_effsam.errors import WeightsError

__all__ = ["load_vgg"]

_KEY = re.compile(r"features\.(\d+)\.weight")


def load_vgg(file: Path, needed: int = 16) -> nn.Sequential:
    """`features` of a torchvision VGG without batch norm, as many layers of it as the file has weights for.

    The layers follow from the indices of the convolutions: each is followed by a ReLU, and by a pooling where the next
    convolution is three indices away. Layer indices are torchvision's.

    Args:
        file: `.safetensors`, or a state dict of `torch.save`, with keys `features.N.weight` and `.bias`.
        needed: how many layers there must be at least.

    Raises:
        WeightsError: unreadable, or the weights of another network.
    """
    if file.suffix == ".safetensors":
        try:
            state = load_file(file)
        except (OSError, SafetensorError) as error:
            raise WeightsError(
                f"{file}: is no readable safetensors file ({error}), expected weights of a VGG. Restore it."
            ) from error
    else:
        state = read_plain(file)[0]
    found = sorted(int(m[1]) for m in map(_KEY.fullmatch, state) if m) if isinstance(state, dict) else []
    layers: list[nn.Module] = []
    with torch.no_grad():
        for index in found:
            weight, bias = state[f"features.{index}.weight"], state.get(f"features.{index}.bias")
            if index == len(layers) + 1:
                layers.append(nn.MaxPool2d(2, 2))
            if index != len(layers) or weight.ndim != 4 or weight.shape[2:] != (3, 3) or bias is None:
                break  # a batch norm, or another kind of layer
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            conv.weight.copy_(weight)
            conv.bias.copy_(bias)  # type: ignore[union-attr]
            layers += [conv, nn.ReLU()]
    if len(layers) < needed:
        raise WeightsError(
            f"{file}: has {len(layers)} layers of a VGG, expected {needed} or more. "
            "Give torchvision's vgg16 or vgg19, the kind without batch norm."
        )
    return nn.Sequential(*layers)
