# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Self-patch prompt generator (SPPG): the network says itself which patches hold something, and prompts with them.

"ESP-MedSAM", Xu et al., arXiv 2407.14153; the released layers are `patch_decoder` and `dense_prompter`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.networks.layers.layer_norm_2d import LayerNorm2d

__all__ = ["PROMPT_MODES", "SelfPatchPrompter", "SelfPrompt"]

PromptMode = Literal["hard", "soft", "ste"]
PROMPT_MODES: tuple[str, ...] = ("hard", "soft", "ste")


class SelfPrompt(NamedTuple):
    """What the prompter made.

    Attributes:
        patch_logits: (B, P, h / 2, w / 2), one cell a patch of two by two embedding cells.
        dense: dense prompt embedding, (B, C, h, w).
    """

    patch_logits: Tensor
    dense: Tensor


class SelfPatchPrompter(nn.Module):
    """Patch map from the embedding, and a dense prompt from the patch map.

    Args:
        embed_dim: C of the embedding.
        patches: number of patch maps P: 1 for all targets (the release), or one a target.
        prompt_mode: `hard` thresholds at 0.5 and passes no gradient from the mask loss to the patch map (the
            release); `soft` prompts with the probability; `ste` thresholds forward and is soft backward.

    Raises:
        ValueError: unknown `prompt_mode`.
    """

    def __init__(self, embed_dim: int = 256, *, patches: int = 1, prompt_mode: str = "soft") -> None:
        super().__init__()
        if prompt_mode not in PROMPT_MODES:
            raise ValueError(
                f"SelfPatchPrompter: prompt_mode is '{prompt_mode}', expected one of {PROMPT_MODES}."
            )
        self.prompt_mode = prompt_mode
        hidden = embed_dim // 4
        self.patch_decoder = nn.Sequential(
            nn.Conv2d(embed_dim, hidden, 2, stride=2),
            LayerNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, patches, 1),
        )
        self.dense_prompter = nn.Sequential(
            nn.Conv2d(patches, embed_dim, 1), LayerNorm2d(embed_dim), nn.GELU()
        )

    def forward(self, embedding: Tensor, active: Tensor | None = None) -> SelfPrompt:
        """Prompt for an embedding (B, C, h, w), h and w even.

        Args:
            embedding: image embedding.
            active: indices (T_m,) of the patch maps in use; the others are not computed, so how many there are
                changes nothing, to the bit. None: all.

        Returns:
            `SelfPrompt`, its `patch_logits` only of the maps in use.
        """
        maps = slice(None) if active is None else active
        last, first = cast(nn.Conv2d, self.patch_decoder[-1]), cast(nn.Conv2d, self.dense_prompter[0])
        hidden = self.patch_decoder[:-1](embedding)
        logits = F.conv2d(hidden, last.weight[maps], cast(Tensor, last.bias)[maps])
        weights = F.interpolate(self._weights(logits), scale_factor=2.0, mode="nearest")
        dense = F.conv2d(weights, first.weight[:, maps], first.bias)
        return SelfPrompt(logits, self.dense_prompter[1:](dense))

    def _weights(self, logits: Tensor) -> Tensor:
        probability = torch.sigmoid(logits)
        if self.prompt_mode == "soft":
            return probability
        hard = (probability.detach() >= 0.5).to(logits.dtype)
        return hard if self.prompt_mode == "hard" else hard + probability - probability.detach()
