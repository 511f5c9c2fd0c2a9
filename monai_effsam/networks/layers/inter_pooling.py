# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Inter-pooling: each position of a local attention's window stands for a cell of the map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_effsam.errors import SpecError
from monai_effsam.networks.layers.local_attention.window import BORDERS, Border

__all__ = ["InterPooling"]


class InterPooling(nn.Module):
    """Average over the cell of p x p positions around each position, at every position.

    Keys and values pooled so, under a window of dilation p, let each of its K positions summarise a cell of its own:
    a window of 3 x 3 with p = 3 covers 9 x 9 positions without gap. No parameters. "TiC: Exploring Vision
    Transformer in Convolution", arXiv 2310.04134, names the mechanism; this form is our reading.

    Args:
        cell: p; 1 changes nothing. The centre of an even cell is at its upper left.
        border: what lies beyond the map: zeros that count, nothing, or the other side; as that of the attention.

    Raises:
        SpecError: a cell below 1, or an unknown border.
    """

    def __init__(self, cell: int, border: Border = "zero") -> None:
        """Check."""
        super().__init__()
        if cell < 1 or border not in BORDERS:
            raise SpecError(
                f"InterPooling: cell is {cell} and border is '{border}', expected at least 1 and one of"
                f" {', '.join(BORDERS)}. Leave the pooling out, or choose one of them."
            )
        self.cell, self.border = cell, border

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), any H and W (at least `cell` / 2 where circular)."""
        if self.cell == 1:
            return x
        pooled = self._mean(x)
        return pooled / self._mean(torch.ones_like(x[:1, :1])) if self.border == "mask" else pooled

    def _mean(self, x: Tensor) -> Tensor:
        before, after = (self.cell - 1) // 2, self.cell // 2
        mode = "circular" if self.border == "circular" else "constant"
        return F.avg_pool2d(F.pad(x, (before, after, before, after), mode=mode), self.cell, 1)

    def extra_repr(self) -> str:
        """What makes it this one."""
        return f"cell={self.cell}, border={self.border}"
