# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The window of a local attention: its size, its dilation, and what lies beyond the border of the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from monai_effsam.errors import ShapeError, SpecError

__all__ = ["BORDERS", "AttentionWindow", "Border", "pad_map", "pair"]

Border = Literal["zero", "mask", "circular"]

BORDERS: tuple[Border, ...] = ("zero", "mask", "circular")
"""What a position outside the map is: a key and value of zeros that takes part in the softmax (the release of TiC),
nothing at all, or the position at the other side."""


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """One number for both axes, or (rows, columns)."""
    if isinstance(value, int):
        return value, value
    rows, columns = value
    return int(rows), int(columns)


@dataclass(frozen=True, slots=True)
class AttentionWindow:
    """Which keys a query sees: K = rows * columns positions around it, `dilation` apart.

    Args:
        size: (rows, columns), odd.
        dilation: steps between neighbours (rows, columns) [px of the map].
        border: one of `BORDERS`.

    Raises:
        SpecError: an even or non-positive size, a dilation below 1, an unknown border.
    """

    size: tuple[int, int] = (3, 3)
    dilation: tuple[int, int] = (1, 1)
    border: Border = "zero"

    def __post_init__(self) -> None:
        """Check."""
        if any(side < 1 or side % 2 == 0 for side in self.size):
            raise SpecError(
                f"AttentionWindow: size is {self.size}, expected odd numbers of at least 1, since a window lies"
                " centred on its query. Take the next odd number."
            )
        if any(step < 1 for step in self.dilation):
            raise SpecError(
                f"AttentionWindow: dilation is {self.dilation}, expected at least 1. Give 1 for adjacent positions."
            )
        if self.border not in BORDERS:
            raise SpecError(
                f"AttentionWindow: border is '{self.border}', expected one of {', '.join(BORDERS)}."
                " Choose 'zero' for that of the release."
            )

    @property
    def reach(self) -> tuple[int, int]:
        """How far the window goes from its query (rows, columns) [px of the map]."""
        return self.dilation[0] * (self.size[0] // 2), self.dilation[1] * (self.size[1] // 2)

    def check_map(self, height: int, width: int) -> None:
        """Refuse a map on which the window would meet a position twice.

        Raises:
            ShapeError: an empty map, or a circular window that reaches further than the map is long.
        """
        if height < 1 or width < 1:
            raise ShapeError(
                f"local_attention: map is {height} x {width}, expected at least 1 x 1. Give pixels."
            )
        if self.border == "circular" and (self.reach[0] > height or self.reach[1] > width):
            raise ShapeError(
                f"local_attention: window reaches {self.reach} around each query on a map of {height} x {width},"
                " expected at most once around, or it is larger than the padded map."
                " Choose a smaller window or dilation, or the border 'zero' or 'mask'."
            )


def pad_map(x: Tensor, window: AttentionWindow) -> Tensor:
    """(B, C, H, W) with the reach of the window around it: zeros, or the other side where circular."""
    rows, columns = window.reach
    mode = "circular" if window.border == "circular" else "constant"
    return F.pad(x, (columns, columns, rows, rows), mode=mode) if rows or columns else x
