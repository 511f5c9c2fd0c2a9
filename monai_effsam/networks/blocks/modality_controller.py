# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""ESP-MedSAM's modality controller: what one modality adds to one transformer block.

One key/value token with a scalar bias joins the attention of every window, and an expert MLP joins the MLP
residual. The rest of the block is shared by all modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ControllerBank", "ControllerTokens", "ModalityController", "TokenMlp"]

_RELEASE_BOUND = (6 / (3 * 16 * 16 + 16)) ** 0.5


class TokenMlp(nn.Module):
    """LayerNorm, then C -> hidden -> C with an exact GELU; no residual of its own.

    Args:
        channels: C, in and out.
        hidden: width between the two linear layers.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        """Build with truncated normal weights (0.02) and zero biases."""
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        for layer in (self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return cast(Tensor, self.fc2(F.gelu(self.fc1(self.norm(x)))))


class ControllerTokens(NamedTuple):
    """Tokens that join the keys and values of a window; the first axis is 1 or one a window.

    Attributes:
        key: (1 or windows, heads, T, d).
        value: (1 or windows, heads, T, d).
        bias: (1 or windows, 1, 1, T), added to every query's logit for the token.
    """

    key: Tensor
    value: Tensor
    bias: Tensor


class ModalityController(nn.Module):
    """Tokens, bias and expert MLP of one modality in one block; 8 C^2 + 7 C + C T + T parameters (tied).

    "ESP-MedSAM", arXiv 2407.14153, read as in the released code. Deviation: the expert's last layer starts at 0
    and the bias at -5, so that a fresh controller hardly disturbs a pretrained block and still gets gradient;
    `release_init` starts as the release does.

    Args:
        channels: C of the block.
        heads: attention heads; the tokens have C / heads channels each.
        tokens: T, key/value tokens.
        tie_kv: one tensor serves as key and value (release); otherwise two.
        release_init: bias 0 and expert at random.
    """

    def __init__(
        self, channels: int, heads: int, tokens: int = 1, tie_kv: bool = True, release_init: bool = False
    ) -> None:
        """Build and initialise."""
        super().__init__()
        self.key_token = nn.Parameter(torch.empty(heads, tokens, channels // heads))
        nn.init.uniform_(self.key_token, -_RELEASE_BOUND, _RELEASE_BOUND)
        self.value_token = None if tie_kv else nn.Parameter(self.key_token.detach().clone())
        self.bias = nn.Parameter(torch.full((tokens,), 0.0 if release_init else -5.0))
        self.expert = TokenMlp(channels, 4 * channels)
        if not release_init:
            nn.init.zeros_(self.expert.fc2.weight)


class ControllerBank(nn.ModuleList):
    """The controllers of one block, one a modality, applied to batches that may mix modalities.

    Only the controllers of the modalities present are touched, so no other gets a gradient.

    Args:
        modalities: M.
        channels: C of the block.
        heads: attention heads of the block.
        tokens: T, key/value tokens of each controller.
        tie_kv: see `ModalityController`.
        release_init: see `ModalityController`.
    """

    def __init__(
        self,
        modalities: int,
        channels: int,
        heads: int,
        tokens: int = 1,
        tie_kv: bool = True,
        release_init: bool = False,
    ) -> None:
        """Build M controllers."""
        super().__init__(
            ModalityController(channels, heads, tokens, tie_kv, release_init) for _ in range(modalities)
        )

    def _of(self, modality: int) -> ModalityController:
        return cast(ModalityController, self[modality])

    def tokens_of(self, modalities: Sequence[int], windows: int) -> ControllerTokens:
        """Tokens for a batch whose images are cut into `windows` windows each.

        Args:
            modalities: modality index of each image.
            windows: windows an image; the result is ordered image by image.
        """
        if len(set(modalities)) == 1:
            modalities, windows = modalities[:1], 1
        chosen = [self._of(m) for m in modalities]
        key = torch.stack([c.key_token for c in chosen])
        value = torch.stack([c.key_token if c.value_token is None else c.value_token for c in chosen])
        bias = torch.stack([c.bias for c in chosen])[:, None, None]
        if windows == 1:
            return ControllerTokens(key, value, bias)
        return ControllerTokens(*(t.repeat_interleave(windows, dim=0) for t in (key, value, bias)))

    def expert(self, x: Tensor, modalities: Sequence[int]) -> Tensor:
        """(B, ..., C) -> (B, ..., C): each image through the expert MLP of its own modality."""
        present = sorted(set(modalities))
        if len(present) == 1:
            return cast(Tensor, self._of(present[0]).expert(x))
        rows = [[i for i, m in enumerate(modalities) if m == p] for p in present]
        parts = [self._of(p).expert(x[row]) for p, row in zip(present, rows, strict=True)]
        order = torch.tensor([i for row in rows for i in row], device=x.device)
        return torch.cat(parts)[order.argsort()]
