# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a supernet's probabilities cost on average: exact for networks that are sums of pieces, and differentiable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_effsam.errors import UsageError
from monai_effsam.nas.cost.architecture_cost import cost_of
from monai_effsam.nas.cost.decoders import decoder_piece
from monai_effsam.nas.cost.pieces import (
    HEAD,
    LATERAL,
    OP,
    STEM,
    NetworkPiece,
    entry_piece,
    inverted_stem_piece,
)
from monai_effsam.nas.cost.table import LatencyTable
from monai_effsam.nas.space.search_space import SearchSpace
from monai_effsam.networks.blocks.operations import SKIP
from monai_effsam.networks.encoders.architecture import Architecture
from monai_effsam.networks.encoders.inverted_trunk import STEM_WIDTHS

__all__ = ["ArchitecturePrice", "CostTerm", "ExpectedCost", "check_budget", "latency_price", "mac_price"]


@dataclass(frozen=True)
class ArchitecturePrice:
    """What a search must not exceed.

    Args:
        unit: such as `ms`.
        piece: part of an encoder -> its share.
        frame: architecture -> what it costs besides the pieces of its encoder; depends on choices of the frame alone.
        whole: architecture -> all it costs.
    """

    unit: str
    piece: Callable[[NetworkPiece], float]
    frame: Callable[[Architecture], float]
    whole: Callable[[Architecture], float]


def latency_price(
    table: LatencyTable, *, with_decoder: bool = False, drawn: bool = True
) -> ArchitecturePrice:
    """Milliseconds by a measured table; a piece that it lacks raises `UsageError`.

    Args:
        table: of the machine that counts.
        with_decoder: of encoding a picture and answering one box, not of encoding alone.
        drawn: whether that box is also drawn as a mask prompt.
    """

    def frame(architecture: Architecture) -> float:
        return table.fit.overhead_ms + (
            table.ms(decoder_piece(architecture, drawn=drawn)) if with_decoder else 0.0
        )

    def whole(architecture: Architecture) -> float:
        found = table.predict(architecture, drawn=drawn)
        return found.total if with_decoder else found.encoder

    return ArchitecturePrice("ms", table.expected_ms, frame, whole)


def mac_price() -> ArchitecturePrice:
    """Millions of multiply-accumulates of the encoder: no table needed, and no good order of times."""
    return ArchitecturePrice(
        "MMAC",
        lambda piece: piece.cost.macs / 1e6,
        lambda architecture: 0.0,
        lambda architecture: cost_of(architecture).encoder.macs / 1e6,
    )


@dataclass(frozen=True)
class CostTerm:
    """A piece whose shape some choices decide on.

    Args:
        names: of these choices.
        prices: of every combination, an axis a choice.
    """

    names: tuple[str, ...]
    prices: Tensor


class ExpectedCost:
    """Mean cost of the architectures of one frame under independent choices.

    Args:
        space: of one frame.
        price: of its parts.

    Raises:
        UsageError: a piece without a price.
    """

    def __init__(self, space: SearchSpace, price: ArchitecturePrice) -> None:
        """Look up every piece once."""
        self.unit = price.unit
        self.frame = price.frame(space.decode([0] * len(space.choices)))
        self.terms = list(_terms(space, price.piece))

    def __call__(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Probabilities of each choice's options -> mean cost, a scalar."""
        total = torch.tensor(self.frame)
        for term in self.terms:
            part = term.prices
            for name in term.names:
                p = probabilities[name]
                part = torch.tensordot(p, part.to(p), dims=1)
            total = total.to(part) + part
        return total

    def cheapest(self) -> float:
        """The least that an architecture of the frame costs."""
        from monai_effsam.nas.supernet.derivation import budgeted_vectors

        flat = {name: torch.zeros(count) for name, count in self.options().items()}
        found = budgeted_vectors(flat, self, None)
        return min(one.cost for one in found)

    def options(self) -> dict[str, int]:
        """How many options each choice has that costs depend on."""
        return {n: k for term in self.terms for n, k in zip(term.names, term.prices.shape, strict=True)}


def _terms(space: SearchSpace, piece: Callable[[NetworkPiece], float]) -> Iterator[CostTerm]:
    size, stride, first = space.sizes[0], space.strides[0], space.stages[0]
    grid, before, last = size // stride, first, {stage.stride: stage for stage in space.stages}
    before_label = space.labels[0]
    for label, stage in zip(space.labels, space.stages, strict=True):
        side, name = size // stage.stride, f"{label}.width"
        if stage is first:
            stems = [_beginning(space, w, piece) for w in stage.widths]
            yield CostTerm((name,), torch.tensor(stems))
        else:
            factor = stage.stride // before.stride
            ways = [
                [piece(entry_piece(stage.entry, a, b, side, factor)) for b in stage.widths]
                for a in before.widths
            ]
            yield CostTerm((f"{before_label}.width", name), torch.tensor(ways))
        prices = [
            [0.0 if op == SKIP else piece(NetworkPiece(OP, op, w, w, side)) for op in (*stage.ops, SKIP)]
            for w in stage.widths
        ]
        for slot in range(stage.slots):
            yield CostTerm((name, f"{label}.op{slot}"), torch.tensor(prices))
        if stage.stride >= stride and stage is last[stage.stride]:
            neck = [
                [piece(NetworkPiece(LATERAL, "", w, n, side, grid // side)) for n in space.neck_widths]
                for w in stage.widths
            ]
            yield CostTerm((name, "neck.width"), torch.tensor(neck))
        before, before_label = stage, label
    embed = space.decoder_widths[0]
    heads = [
        [piece(NetworkPiece(HEAD, kind, n, embed, grid)) for n in space.neck_widths]
        for kind in space.neck_kinds
    ]
    yield CostTerm(("neck.kind", "neck.width"), torch.tensor(heads))


def _beginning(space: SearchSpace, width: int, piece: Callable[[NetworkPiece], float]) -> float:
    """Price of what leads to the first stage."""
    size, first = space.sizes[0], space.stages[0]
    if not space.inverted:
        return piece(NetworkPiece(STEM, "", 3, width, size, first.stride))
    entry = entry_piece(first.entry, STEM_WIDTHS[-1], width, size // first.stride, first.stride // 2)
    return piece(inverted_stem_piece(size)) + piece(entry)


def check_budget(budget: float, cheapest: float, unit: str) -> None:
    """Refuse a budget that no architecture of a space meets.

    Raises:
        UsageError: the message tells the cheapest one's cost.
    """
    if not budget > 0 or cheapest > budget:
        raise UsageError(
            f"budget is {budget:g} {unit}, expected at least {cheapest:.3g} {unit}, what the smallest network of the "
            "space costs. Allow more, or take a smaller space."
        )
