# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The pieces that a searched network consists of: what a table of cost has entries for.

Their costs add up to the network's. MACs and parameters follow closed forms; times are measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from monai_effsam.nas.space.search_space import SearchSpace
from monai_effsam.networks.blocks.operations import OPERATIONS, ComputeCost, convolution_cost, find_operation
from monai_effsam.networks.encoders.architecture import Architecture

__all__ = ["ENTRY", "HEAD", "LATERAL", "OP", "STEM", "NetworkPiece", "encoder_pieces", "space_pieces"]

OP, STEM, ENTRY, LATERAL, HEAD = "op", "stem", "entry", "lateral", "head"


@dataclass(frozen=True)
class NetworkPiece:
    """A part of an encoder at one shape.

    Args:
        kind: `op` (a block), `stem`, `entry` (what leads to a stage), `lateral` (1x1 convolution of the neck, with the
            enlarging and the sum after it) or `head` (from the neck's sum to the embedding).
        name: of the operation, or the kind of head.
        inputs: C of its input.
        outputs: C of its output.
        side: of its input map [cells].
        factor: how much finer (`lateral`) or coarser (`stem`) its output is.
    """

    kind: str
    name: str
    inputs: int
    outputs: int
    side: int
    factor: int = 1

    @property
    def key(self) -> str:
        """What it is called in tables, such as `op/mbconv_k3_e2/c48/32x32`."""
        parts = {
            OP: f"{self.name}/c{self.outputs}",
            STEM: f"s{self.factor}/c{self.outputs}",
            ENTRY: f"c{self.inputs}-{self.outputs}",
            LATERAL: f"x{self.factor}/c{self.inputs}-{self.outputs}",
            HEAD: f"{self.name}/c{self.inputs}-{self.outputs}",
        }
        return f"{self.kind}/{parts[self.kind]}/{self.side}x{self.side}"

    @property
    def cost(self) -> ComputeCost:
        """MACs and parameters of the convolutions and products inside."""
        cells = self.side * self.side
        if self.kind == OP:
            return find_operation(self.name).cost(self.outputs, self.side, self.side)
        if self.kind == ENTRY:
            return convolution_cost(self.inputs, self.outputs, 3, cells // 4)
        if self.kind == LATERAL:
            return convolution_cost(self.inputs, self.outputs, 1, cells)
        if self.kind == STEM:
            return self._stem_cost()
        norm = ComputeCost(0, 2 * self.outputs)
        if self.name == "dense":
            return norm.plus(convolution_cost(self.inputs, self.outputs, 3, cells, norm=False))
        depthwise = convolution_cost(self.inputs, self.inputs, 3, cells, groups=self.inputs)
        return norm.plus(depthwise).plus(convolution_cost(self.inputs, self.outputs, 1, cells, norm=False))

    def _stem_cost(self) -> ComputeCost:
        steps, inputs, side, total = self.factor.bit_length() - 1, self.inputs, self.side, ComputeCost()
        for i in range(steps):
            outputs = self.outputs if i == steps - 1 else max(16, self.outputs >> (steps - 1 - i))
            side //= 2
            total = total.plus(convolution_cost(inputs, outputs, 3, side * side))
            inputs = outputs
        return total


def encoder_pieces(architecture: Architecture) -> list[NetworkPiece]:
    """The pieces of an architecture's encoder at its model size, in order, equal ones as often as they occur."""
    size, first = architecture.size, architecture.stages[0]
    pieces = [NetworkPiece(STEM, "", 3, first.width, size, first.stride)]
    width = first.width
    for i, stage in enumerate(architecture.stages):
        side = size // stage.stride
        if i:
            pieces.append(NetworkPiece(ENTRY, "", width, stage.width, 2 * side))
        pieces += [NetworkPiece(OP, name, stage.width, stage.width, side) for name in stage.ops]
        width = stage.width
    neck, grid = architecture.neck, architecture.grid
    for stage in architecture.stages:
        if stage.stride >= architecture.stride:
            side = size // stage.stride
            pieces.append(NetworkPiece(LATERAL, "", stage.width, neck.width, side, grid // side))
    pieces.append(NetworkPiece(HEAD, neck.kind, neck.width, architecture.decoder.width, grid))
    return pieces


def space_pieces(space: SearchSpace, *, references: bool = False) -> list[NetworkPiece]:
    """Every piece that an encoder of a space may have, each once.

    Args:
        space: to be covered.
        references: also the operations that no space may choose, at the shapes of the stages from stride 8 on.
    """
    return list(dict.fromkeys(piece for size in space.sizes for piece in _sized(space, size, references)))


def _sized(space: SearchSpace, size: int, references: bool) -> Iterable[NetworkPiece]:
    for before, stage in zip((None, *space.stages), space.stages, strict=False):
        side = size // stage.stride
        if stage.stride in space.stems:
            yield from (NetworkPiece(STEM, "", 3, width, size, stage.stride) for width in stage.widths)
        more = [op.name for op in OPERATIONS.values() if op.reference and references and stage.stride >= 8]
        for width in stage.widths:
            yield from (NetworkPiece(OP, name, width, width, side) for name in (*stage.ops, *more))
            for inputs in before.widths if before and before.stride >= min(space.stems) else ():
                yield NetworkPiece(ENTRY, "", inputs, width, 2 * side)
            for stride in space.strides:
                for neck in space.neck_widths if stage.stride >= stride else ():
                    yield NetworkPiece(LATERAL, "", width, neck, side, stage.stride // stride)
    for kind in space.neck_kinds:
        for neck in space.neck_widths:
            for width in space.decoder_widths:
                yield from (NetworkPiece(HEAD, kind, neck, width, size // stride) for stride in space.strides)
