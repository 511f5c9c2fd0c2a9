# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The pieces that a searched network consists of: what a table of cost has entries for.

Their costs add up to the network's. MACs and parameters follow closed forms; times are measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from monai_effsam.nas.space.search_space import SearchSpace, StageChoices
from monai_effsam.networks.blocks.operations import (
    INVERTED,
    OPERATIONS,
    ComputeCost,
    convolution_cost,
    find_operation,
)
from monai_effsam.networks.encoders.architecture import CONV_ENTRY, Architecture
from monai_effsam.networks.encoders.inverted_trunk import STEM_WIDTHS

__all__ = [
    "ENTRY",
    "HEAD",
    "LATERAL",
    "OP",
    "STEM",
    "NetworkPiece",
    "encoder_pieces",
    "entry_piece",
    "inverted_stem_piece",
    "space_pieces",
]

OP, STEM, ENTRY, LATERAL, HEAD = "op", "stem", "entry", "lateral", "head"


@dataclass(frozen=True)
class NetworkPiece:
    """A part of an encoder at one shape; ReLU and ReLU6, and paddings of one size, are taken to cost alike.

    Args:
        kind: `op` (a block), `stem`, `entry` (what leads to a stage), `lateral` (1x1 convolution of the neck, with the
            enlarging and the sum after it) or `head` (from the neck's sum to the embedding).
        name: of the operation, or the kind of head; of stem and entries of inverted trunks, else empty.
        inputs: C of its input.
        outputs: C of its output.
        side: of its input map [cells].
        factor: how much finer (`lateral`) or coarser (`stem`, `entry` with a name) its output is.
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
            STEM: f"{self.name and self.name + '/'}s{self.factor}/c{self.outputs}",
            ENTRY: f"{self.name and f'{self.name}/s{self.factor}/'}c{self.inputs}-{self.outputs}",
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
            return self._entry_cost()
        if self.kind == LATERAL:
            return convolution_cost(self.inputs, self.outputs, 1, cells)
        if self.kind == STEM:
            return self._stem_cost()
        norm = ComputeCost(0, 2 * self.outputs)
        if self.name == "dense":
            return norm.plus(convolution_cost(self.inputs, self.outputs, 3, cells, norm=False))
        depthwise = convolution_cost(self.inputs, self.inputs, 3, cells, groups=self.inputs)
        return norm.plus(depthwise).plus(convolution_cost(self.inputs, self.outputs, 1, cells, norm=False))

    def _entry_cost(self) -> ComputeCost:
        cells = self.side * self.side
        if not self.name:
            return convolution_cost(self.inputs, self.outputs, 3, cells // 4)
        (kernel, expand), after = INVERTED[self.name], cells // self.factor**2
        hidden = expand * self.inputs
        parts = convolution_cost(self.inputs, hidden, 1, cells)
        parts = parts.plus(convolution_cost(hidden, hidden, kernel, after, groups=hidden))
        return parts.plus(convolution_cost(hidden, self.outputs, 1, after))

    def _stem_cost(self) -> ComputeCost:
        if self.name:
            (wide, narrow), half = STEM_WIDTHS, (self.side // 2) ** 2
            parts = convolution_cost(3, wide, 3, half).plus(
                convolution_cost(wide, wide, 3, half, groups=wide)
            )
            return parts.plus(convolution_cost(wide, narrow, 1, half))
        steps, inputs, side, total = self.factor.bit_length() - 1, self.inputs, self.side, ComputeCost()
        for i in range(steps):
            outputs = self.outputs if i == steps - 1 else max(16, self.outputs >> (steps - 1 - i))
            side //= 2
            total = total.plus(convolution_cost(inputs, outputs, 3, side * side))
            inputs = outputs
        return total


def inverted_stem_piece(size: int) -> NetworkPiece:
    """The stem of every inverted trunk."""
    return NetworkPiece(STEM, "inverted", 3, STEM_WIDTHS[-1], size, 2)


def entry_piece(name: str, inputs: int, outputs: int, side: int, factor: int) -> NetworkPiece:
    """What leads to a stage.

    Args:
        name: as of `StageShape.entry`.
        inputs: C of the stage before.
        outputs: C of the stage.
        side: of the stage's maps [cells].
        factor: its stride over that of the stage before.
    """
    if name == CONV_ENTRY:
        return NetworkPiece(ENTRY, "", inputs, outputs, factor * side)
    return NetworkPiece(ENTRY, name, inputs, outputs, factor * side, factor)


def encoder_pieces(architecture: Architecture) -> list[NetworkPiece]:
    """The pieces of an architecture's encoder at its model size, in order, equal ones as often as they occur."""
    size, first = architecture.size, architecture.stages[0]
    pieces = [NetworkPiece(STEM, "", 3, first.width, size, first.stride)]
    width, stride = first.width, first.stride
    if architecture.inverted:
        pieces, width, stride = [inverted_stem_piece(size)], STEM_WIDTHS[-1], 2
    for i, stage in enumerate(architecture.stages):
        side = size // stage.stride
        if i or architecture.inverted:
            pieces.append(entry_piece(stage.entry, width, stage.width, side, stage.stride // stride))
        pieces += [NetworkPiece(OP, name, stage.width, stage.width, side) for name in stage.ops]
        width, stride = stage.width, stage.stride
    neck, grid = architecture.neck, architecture.grid
    for stride, width in architecture.levels.items():
        side = size // stride
        pieces.append(NetworkPiece(LATERAL, "", width, neck.width, side, grid // side))
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
    if space.inverted:
        first = space.stages[0]
        yield inverted_stem_piece(size)
        for width in first.widths:
            yield entry_piece(first.entry, STEM_WIDTHS[-1], width, size // first.stride, first.stride // 2)
    last = {stage.stride: stage for stage in space.stages}
    for before, stage in zip((None, *space.stages), space.stages, strict=False):
        yield from _of_stage(space, size, stage, before, references)
        if stage is last[stage.stride]:
            yield from _laterals(space, size, stage)
    for kind in space.neck_kinds:
        for neck in space.neck_widths:
            for width in space.decoder_widths:
                yield from (NetworkPiece(HEAD, kind, neck, width, size // stride) for stride in space.strides)


def _of_stage(
    space: SearchSpace, size: int, stage: StageChoices, before: StageChoices | None, references: bool
) -> Iterable[NetworkPiece]:
    """The stem that may lead to a stage, its blocks, and the entries from the stage before."""
    side = size // stage.stride
    if stage.stride in space.stems and not space.inverted:
        yield from (NetworkPiece(STEM, "", 3, width, size, stage.stride) for width in stage.widths)
    more = [op for op in OPERATIONS.values() if op.reference and references and stage.stride >= 8]
    for width in stage.widths:
        names = [*stage.ops, *(op.name for op in more if not width % op.step)]
        yield from (NetworkPiece(OP, name, width, width, side) for name in names)
        if before and before.stride >= min(space.stems):
            factor = stage.stride // before.stride
            yield from (entry_piece(stage.entry, inputs, width, side, factor) for inputs in before.widths)


def _laterals(space: SearchSpace, size: int, stage: StageChoices) -> Iterable[NetworkPiece]:
    for stride in space.strides:
        if stage.stride >= stride:
            side, factor = size // stage.stride, stage.stride // stride
            for width in stage.widths:
                yield from (
                    NetworkPiece(LATERAL, "", width, neck, side, factor) for neck in space.neck_widths
                )
