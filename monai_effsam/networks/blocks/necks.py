# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What brings an encoder's last map to the width of the embedding."""

from __future__ import annotations

from torch import nn

from monai_effsam.networks.layers.layer_norm_2d import LayerNorm2d

__all__ = ["SamNeck"]


class SamNeck(nn.Sequential):
    """Segment-anything's neck: 1x1 convolution -> channel norm -> 3x3 convolution -> channel norm, no biases.

    Keys `0`..`3` as in segment-anything; (B, C_in, H, W) -> (B, C_out, H, W).

    Args:
        in_channels: C of the encoder's last map.
        out_channels: C of the embedding.
        refinements: how many 3x3 convolutions, each with its norm; 1 in segment-anything.
    """

    def __init__(self, in_channels: int, out_channels: int = 256, refinements: int = 1) -> None:
        """Build the layers."""
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            LayerNorm2d(out_channels),
        ]
        for _ in range(refinements):
            layers.append(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False))
            layers.append(LayerNorm2d(out_channels))
        super().__init__(*layers)
