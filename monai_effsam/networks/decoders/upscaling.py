# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""From decoded image tokens to the fine map that the queries are multiplied with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.networks.layers.layer_norm_2d import LayerNorm2d

__all__ = ["SkipUpscaling", "plain_upscaling"]


def plain_upscaling(embed_dim: int = 256) -> nn.Sequential:
    """segment-anything's upscaling by four, same keys: (B, C, h, w) -> (B, C / 8, 4 h, 4 w)."""
    return nn.Sequential(
        nn.ConvTranspose2d(embed_dim, embed_dim // 4, 2, stride=2),
        LayerNorm2d(embed_dim // 4),
        nn.GELU(),
        nn.ConvTranspose2d(embed_dim // 4, embed_dim // 8, 2, stride=2),
        nn.GELU(),
    )


class SkipUpscaling(nn.Module):
    """Upscaling that takes up the encoder's finer maps on its way, two-fold a step.

    Thin structures (retinal vessels, small organs) are lost at the embedding's stride; the skips bring them back.

    Args:
        embed_dim: C of the image tokens.
        skip_channels: channels of the skips, coarse to fine.
        channels: width after each step, as many as skips.
    """

    def __init__(self, embed_dim: int, skip_channels: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        widths = (embed_dim, *channels)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[i], widths[i + 1], 2, stride=2) for i in range(len(channels))
        )
        self.lateral = nn.ModuleList(nn.Conv2d(s, c, 1) for s, c in zip(skip_channels, channels, strict=True))
        self.norm = nn.ModuleList(LayerNorm2d(c) for c in channels)
        self.mix = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for c in channels)

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """(B, C, h, w) and the skips -> (B, channels[-1], 2^n h, 2^n w)."""
        for up, lateral, norm, mix, skip in zip(
            self.up, self.lateral, self.norm, self.mix, skips, strict=True
        ):
            x = norm(up(x) + lateral(skip))
            x = x + mix(F.gelu(x))
        return F.gelu(x)
