# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One small expert MLP a modality, added to shared features (ESP-MedSAM's modality controller)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from monai_effsam.errors import UsageError

__all__ = ["ModalityExperts", "by_modality"]


def by_modality(modality: Tensor, count: int) -> list[tuple[int, Tensor | None]]:
    """The modalities present in (B,) indices, each with its rows; rows are None where all rows share one.

    Raises:
        UsageError: an index outside 0..count - 1.
    """
    present = [int(m) for m in torch.unique(modality)]
    if min(present) < 0 or max(present) >= count:
        raise UsageError(
            f"modality is {present}, expected indices 0..{count - 1}. Build the network with more modalities."
        )
    if len(present) == 1:
        return [(present[0], None)]
    return [(m, torch.nonzero(modality == m).flatten()) for m in present]


class ModalityExperts(nn.Module):
    """A residual branch with own weights for every modality: LayerNorm, Linear, GELU, Linear, over the last axis.

    The second linear layer starts at zero, so a fresh expert leaves the shared features as they are
    (the release starts it at random; see `release_init`).

    Args:
        channels: C of the features.
        modalities: number of experts M; 0 for a network that knows no modalities.
        ratio: hidden width over C.
        release_init: start the second layer at random, truncated normal with sigma 0.02.
    """

    def __init__(
        self, channels: int, modalities: int, *, ratio: float = 1.0, release_init: bool = False
    ) -> None:
        super().__init__()
        hidden = max(8, round(channels * ratio))
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)
            )
            for _ in range(modalities)
        )
        for expert in self.experts:
            _, first, _, last = cast(
                tuple[nn.Module, nn.Linear, nn.Module, nn.Linear], tuple(cast(nn.Sequential, expert))
            )
            nn.init.trunc_normal_(first.weight, std=0.02)
            nn.init.zeros_(first.bias)
            nn.init.zeros_(last.bias)
            nn.init.trunc_normal_(last.weight, std=0.02) if release_init else nn.init.zeros_(last.weight)

    def forward(self, x: Tensor, modality: Tensor) -> Tensor:
        """(B, ..., C) and (B,) int64 -> (B, ..., C): the expert's answer, to be added by the caller; 0 if M is 0."""
        if not len(self.experts):
            return torch.zeros_like(x)
        groups = by_modality(modality, len(self.experts))
        if groups[0][1] is None:
            return cast(Tensor, self.experts[groups[0][0]](x))
        out = torch.empty_like(x)
        for index, rows in groups:
            out[rows] = self.experts[index](x[rows])
        return out
