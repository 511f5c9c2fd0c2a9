# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One slot of a stage: its candidates, mixed or drawn, at any width of the stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from monai_effsam.nas.supernet.drawing_lots import ChoiceLot
from monai_effsam.nas.supernet.slicing import SlicedModule
from monai_effsam.networks.blocks.operations import SKIP
from monai_effsam.networks.encoders.architecture import TRUNK_KINDS
from monai_effsam.networks.encoders.searched import stage_block

__all__ = ["BlockGuards", "MixedBlock", "gated"]


class BlockGuards:
    """What keeps `skip` from winning by being easy; shared by all blocks of a supernet, set before each step.

    Attributes:
        auxiliary: beta of DARTS- (arXiv 2009.01027): a way around each block that no choice decides on; goes to 0.
        skip_dropout: share of channels that `skip` drops (P-DARTS, arXiv 1904.12760), the same in all processes.
        generator: of the dropout.
    """

    def __init__(self) -> None:
        """No guards."""
        self.auxiliary = 0.0
        self.skip_dropout = 0.0
        self.generator: torch.Generator | None = None

    def skipped(self, x: Tensor, training: bool) -> Tensor:
        """What `skip` hands on."""
        if not training or not self.skip_dropout or self.generator is None:
            return x
        kept = torch.rand(1, x.shape[1], 1, 1, generator=self.generator).to(x) >= self.skip_dropout
        return x * kept / (1 - self.skip_dropout)


class MixedBlock(nn.Module):
    """Candidates side by side; (B, C, H, W) -> (B, C, H, W) at any C the stage may have.

    Args:
        ops: names, `skip` among them.
        width: largest C.
        guards: of the supernet.
        trunk: one of `TRUNK_KINDS`.
    """

    def __init__(
        self, ops: Sequence[str], width: int, guards: BlockGuards, trunk: str = TRUNK_KINDS[0]
    ) -> None:
        """Build every candidate at the largest width."""
        super().__init__()
        self.ops, self.guards = tuple(ops), guards
        self.candidates = nn.ModuleDict(
            {
                name: SlicedModule(partial(stage_block, name=name, trunk=trunk), width)
                for name in ops
                if name != SKIP
            }
        )

    def forward(self, x: Tensor, lot: ChoiceLot, gate: Tensor | None = None) -> Tensor:
        """Output of the drawn candidate, or the mixture; `gate` weighs its channels, (C, 1, 1)."""
        outputs = [self._output(index, x) for index in lot.options]
        if lot.weights is None:
            mixed = outputs[0]
        else:
            mixed = torch.zeros_like(x)
            for weight, output in zip(lot.weights, outputs, strict=True):
                mixed = mixed + weight.to(x.dtype) * output
        if gate is not None:
            # a soft gate holds for what the block adds: along many blocks it would wear the map itself away
            mixed = x + gate * (mixed - x) if lot.soft else gate * mixed
        return mixed + self.guards.auxiliary * x if self.training and self.guards.auxiliary else mixed

    def _output(self, index: int, x: Tensor) -> Tensor:
        name = self.ops[index]
        if name == SKIP:
            return self.guards.skipped(x, self.training)
        output: Tensor = self.candidates[name]((x.shape[1],), x)
        return output


def gated(widths: Sequence[int], lot: ChoiceLot) -> tuple[int, Tensor | None]:
    """Width that a lot stands for, and the gate (C, 1, 1) through which its choice learns.

    A channel's gate is the weight of all options that have the channel. Of a hard draw it is 1 everywhere, and what
    its gradient tells is how much the channels matter that narrower options lack; wider ones are told of when drawn.

    Args:
        widths: options.
        lot: drawn; of a soft one the widest is computed.
    """
    if lot.weights is None:
        return widths[lot.chosen], None
    width = max(widths[i] for i in lot.options) if lot.soft else widths[lot.chosen]
    channels = torch.arange(width, device=lot.weights.device)
    having = torch.stack([(channels < widths[i]).float() for i in lot.options])
    return width, (lot.weights[:, None] * having).sum(0)[:, None, None]
