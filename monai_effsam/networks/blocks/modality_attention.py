# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Global self-attention on a feature map, with a key/value token and an expert MLP for every modality.

The place of ESP-MedSAM's modality controller (arXiv 2407.14153) in a convolutional encoder, which has no attention
of its own: one block on the coarsest map. Position comes from a depthwise convolution, so any H, W works.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.networks.blocks.modality_experts import ModalityExperts

__all__ = ["ModalityAttentionBlock"]


class ModalityAttentionBlock(nn.Module):
    """Pre-norm transformer block on (B, C, H, W) whose keys and values hold one extra token of the modality.

    A = softmax(q [K; t_m]^T / sqrt(d) + [0, b_m]), out = A [V; t_m]; then x + MLP(x) + expert_m(x).

    Args:
        channels: C, divisible by `heads`.
        modalities: number of modalities M; 0 for the plain block.
        heads: attention heads.
        mlp_ratio: hidden width of the shared MLP over C.
        expert_ratio: hidden width of the experts over C.

    Raises:
        ValueError: `channels` not divisible by `heads`.
    """

    def __init__(
        self,
        channels: int,
        modalities: int,
        *,
        heads: int = 8,
        mlp_ratio: float = 2.0,
        expert_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(
                f"ModalityAttentionBlock: channels is {channels}, expected a multiple of heads {heads}. "
                "Choose another number of heads."
            )
        self.heads = heads
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.token = nn.Parameter(
            torch.empty(modalities, heads, 1, channels // heads).uniform_(-0.0875, 0.0875)
        )
        self.token_bias = nn.Parameter(torch.zeros(modalities))
        hidden = round(channels * mlp_ratio)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)
        )
        self.experts = ModalityExperts(channels, modalities, ratio=expert_ratio)

    def forward(self, x: Tensor, modality: Tensor | None) -> Tensor:
        """(B, C, H, W) and (B,) int64, or None for the plain block -> (B, C, H, W)."""
        _, channels, height, width = x.shape
        x = x + self.position(x)
        tokens = x.flatten(2).transpose(1, 2)  # (B, HW, C)
        tokens = tokens + self._attend(self.norm(tokens), modality)
        answers = tokens + self.mlp(tokens)
        if modality is not None:
            answers = answers + self.experts(tokens, modality)
        return answers.transpose(1, 2).reshape(-1, channels, height, width)

    def _attend(self, x: Tensor, modality: Tensor | None) -> Tensor:
        batch, length, channels = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, G, HW, d)
        if modality is None or not len(self.token):
            plain = F.scaled_dot_product_attention(q, k, v)
            return self.proj(plain.transpose(1, 2).reshape(batch, length, channels))
        token = self.token[modality]  # (B, G, 1, d), key and value alike
        bias = F.pad(self.token_bias[modality].view(batch, 1, 1, 1), (length, 0))  # (B, 1, 1, HW + 1)
        out = F.scaled_dot_product_attention(
            q, torch.cat([k, token], 2), torch.cat([v, token], 2), attn_mask=bias.expand(-1, -1, length, -1)
        )
        return self.proj(out.transpose(1, 2).reshape(batch, length, channels))
