# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Multi-directional cyclic shift: heads of a local attention look somewhere else, each group in a direction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monai_effsam.errors import SpecError

__all__ = ["SHIFT_DIRECTIONS", "CyclicShift"]

SHIFT_DIRECTIONS: tuple[tuple[int, int], ...] = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
"""(rows, columns): the first group stays, so that what is near is seen as well."""


class CyclicShift(nn.Module):
    """Rolls the keys and values of each group of heads, so that a query sees the window centred `step` away.

    Query p of a group with direction d attends around p - s d, s = min(step, side / 2) of the map at hand: long
    connections at no cost and without parameters. "TiC: Exploring Vision Transformer in Convolution",
    arXiv 2310.04134, names the mechanism; that keys and values are shifted against the queries is our reading, since
    a shift of the whole map changes a sliding window at borders only.

    Heads are divided evenly among the directions in their order; fewer heads than directions take the first ones,
    so one head alone is not shifted. Square maps keep the symmetry of 90 degrees where the four directions have
    equally many heads.

    Args:
        heads: of the attention; they divide the channels.
        step: how far [px of the map].
        wrap: what leaves the map comes in at the other side; without, zeros come in.

    Raises:
        SpecError: a step below 0, or no head.
    """

    def __init__(self, heads: int, step: int, *, wrap: bool = True) -> None:
        """Choose each head's direction."""
        super().__init__()
        if heads < 1 or step < 0:
            raise SpecError(
                f"CyclicShift: heads is {heads} and step is {step}, expected at least 1 and 0."
                " Leave the shift out instead."
            )
        count = min(heads, len(SHIFT_DIRECTIONS))
        numbers = [head * count // heads for head in range(heads)]
        self.groups = tuple((SHIFT_DIRECTIONS[n], numbers.count(n)) for n in range(count))
        self.heads, self.step, self.wrap = heads, step, wrap

    def forward(self, x: Tensor) -> Tensor:
        """Keys or values (B, C, H, W), any H and W -> the same shape, each group of heads shifted."""
        width = x.shape[1] // self.heads
        parts = torch.split(x, [width * heads for _, heads in self.groups], 1)
        moved = []
        for ((rows, columns), _), part in zip(self.groups, parts, strict=True):
            for direction, dim in ((rows, 2), (columns, 3)):
                part = self._moved(part, direction, dim) if direction else part
            moved.append(part)
        return torch.cat(moved, 1)

    def _moved(self, x: Tensor, direction: int, dim: int) -> Tensor:
        """Shifted along one dimension by slices, whose lengths stay free in a traced graph."""
        side = x.shape[dim]
        amount = _at_most(self.step, side // 2)
        cut = side - amount if direction > 0 else amount
        head, tail = (x[:, :, :cut], x[:, :, cut:]) if dim == 2 else (x[..., :cut], x[..., cut:])
        if not self.wrap:
            head, tail = (head, torch.zeros_like(tail)) if direction > 0 else (torch.zeros_like(head), tail)
        return torch.cat([tail, head], dim)

    def extra_repr(self) -> str:
        """What makes it this one."""
        return f"heads={self.heads}, step={self.step}, wrap={self.wrap}"


def _at_most(step: int, limit: Any) -> Any:
    """The smaller one; while a graph is traced, `limit` is a tensor, and a comparison would become a constant."""
    return torch.clamp(limit, max=step) if isinstance(limit, Tensor) else min(step, limit)
