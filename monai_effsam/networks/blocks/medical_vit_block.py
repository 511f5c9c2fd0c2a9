# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""segment-anything's ViT block with ESP-MedSAM's medical parts: key and value tokens, and an expert MLP."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_effsam.networks.foreign import import_segment_anything

__all__ = ["MedicalParts", "MedicalVitBlock"]

_TOKEN_BOUND = 0.0875  # of a fresh key token, as in the release of the student


class MedicalParts(nn.Module):
    """What the medical teacher adds to one block: 2 T C + 2 C H + C + H parameters, one set for all modalities.

    "ESP-MedSAM", arXiv 2407.14153. With C = 768, T = 10 and H = 192 they are 15,360 + 295,872. Values and the
    expert's last layer start at 0.

    Args:
        width: C of the block.
        heads: attention heads of the block; a token has C / heads channels for each.
        tokens: T.
        hidden: H of the expert.
    """

    def __init__(self, width: int, heads: int, tokens: int, hidden: int) -> None:
        """Build and initialise."""
        super().__init__()
        self.key_token = nn.Parameter(torch.empty(heads, tokens, width // heads))
        self.value_token = nn.Parameter(torch.zeros(heads, tokens, width // heads))
        nn.init.uniform_(self.key_token, -_TOKEN_BOUND, _TOKEN_BOUND)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.trunc_normal_(self.fc1.weight, std=0.02)
        for silent in (self.fc1.bias, self.fc2.weight, self.fc2.bias):
            nn.init.zeros_(silent)

    def forward(self, x: Tensor) -> Tensor:
        """The expert's answer to normalised tokens, (..., C) -> (..., C)."""
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


class MedicalVitBlock(nn.Module):
    """x + attention(norm1(x)), with tokens among the keys and values; then x + MLP(n) + expert(n), n = norm2(x).

    softmax([q k^T / sqrt(d) + position, q t_k^T / sqrt(d) + b]) [v; t_v]. The constant b keeps fresh tokens nearly
    silent. Exactly silent they could not be: what a token with no weight in the softmax holds gets no gradient. With
    b = -inf the attention is segment-anything's.

    Args:
        block: of segment-anything's `ImageEncoderViT`; its parts are used, under its names.
        width: C of the block.
        heads: attention heads of the block.
        tokens: T.
        hidden: of the expert.
        token_bias: b; 0 is the paper's figure.
    """

    def __init__(
        self, block: nn.Module, width: int, heads: int, tokens: int, hidden: int, token_bias: float = -5.0
    ) -> None:
        """Take the block's parts and add the medical ones."""
        super().__init__()
        plain = cast(Any, block)
        self.norm1, self.attn, self.norm2, self.mlp = plain.norm1, plain.attn, plain.norm2, plain.mlp
        self.window = int(plain.window_size)  # 0 for attention over the whole map
        self.medical = MedicalParts(width, heads, tokens, hidden)
        self.token_bias = token_bias

    def forward(self, x: Tensor, medical: bool = True) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C).

        Args:
            x: tokens.
            medical: False for segment-anything's block, as if the medical parts were not there.
        """
        height, width = x.shape[1:3]
        attend = self._attend if medical else self.attn
        inner = self.norm1(x)
        if self.window:
            library = import_segment_anything().modeling.image_encoder
            inner, padded = library.window_partition(inner, self.window)
            inner = attend(inner)
            inner = library.window_unpartition(inner, self.window, padded, (height, width))
        else:
            inner = attend(inner)
        x = x + inner
        inner = self.norm2(x)
        x = x + self.mlp(inner)
        return x + self.medical(inner) if medical else x

    def _attend(self, x: Tensor) -> Tensor:
        """(windows, h, w, C) -> the same; the order of axes is segment-anything's."""
        library = import_segment_anything().modeling.image_encoder
        count, height, width, channels = x.shape
        cells, attn = height * width, self.attn
        heads = int(attn.num_heads)
        qkv = attn.qkv(x).view(count, cells, 3, heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.flatten(1, 2).unbind(0)  # (windows * heads, cells, d)
        logits = (q * attn.scale) @ k.transpose(-1, -2)
        logits = library.add_decomposed_rel_pos(
            logits, q, attn.rel_pos_h, attn.rel_pos_w, (height, width), (height, width)
        )
        key = self.medical.key_token.repeat(count, 1, 1)  # (windows * heads, T, d)
        value = self.medical.value_token.repeat(count, 1, 1)
        more = (q * attn.scale) @ key.transpose(-1, -2) + self.token_bias
        weights = torch.cat([logits, more], dim=-1).softmax(-1)
        out = weights[..., :cells] @ v + weights[..., cells:] @ value
        out = out.view(count, heads, height, width, -1).permute(0, 2, 3, 1, 4)
        return cast(Tensor, attn.proj(out.reshape(count, height, width, channels)))
