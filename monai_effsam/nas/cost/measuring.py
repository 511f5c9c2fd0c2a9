# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Filling a latency table: pieces inside chains, short and long ones by turns, so that what calls share drops out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from monai_effsam.nas.cost.decoders import DecoderPiece
from monai_effsam.nas.cost.pieces import ENTRY, LATERAL, OP, STEM, NetworkPiece
from monai_effsam.nas.cost.table import LatencyTable
from monai_effsam.nas.space.search_space import SearchSpace
from monai_effsam.networks.blocks.mbconv import ConvNorm
from monai_effsam.networks.blocks.operations import build_operation
from monai_effsam.networks.encoders.architecture import CONV_ENTRY, Architecture, StageShape
from monai_effsam.networks.encoders.inverted_trunk import InvertedStem
from monai_effsam.networks.encoders.searched import (
    SearchedEncoder,
    SearchedStem,
    embedding_head,
    enlarged,
    stage_entry,
)
from monai_effsam.networks.nets.promptable_sam import PromptableSam

__all__ = [
    "DecoderGraphMaker",
    "EmbeddingOnly",
    "PieceChain",
    "Stopwatch",
    "measure_encoders",
    "measure_table",
    "sampled",
]

_FLOOR_MS = 1e-4  # of an entry: a difference of two times may come out below nothing


class Stopwatch(Protocol):
    """What times graphs in a runtime; `monai_effsam.inference.stopwatch.RuntimeStopwatch` is one."""

    @property
    def machine(self) -> Mapping[str, Any]:
        """What its times depend on."""

    def prepare(self, graph: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
        """A call that runs a module on these inputs once, to its end."""

    def turns(self, calls: Sequence[Callable[[], object]]) -> list[list[float]]:
        """Times of each call [ms], all of them by turns, after some that warm up."""


DecoderGraphMaker = Callable[[PromptableSam], nn.Module]
"""Network -> (embedding, points, labels) -> masks and quality; `inference.export` has one that exporters can trace."""


class PieceChain(nn.Module):
    """A piece several times: blocks one after the other, pieces that change the shape side by side and summed.

    Args:
        piece: of an encoder.
        copies: how often.
    """

    def __init__(self, piece: NetworkPiece, copies: int) -> None:
        """Build, each copy with weights of its own."""
        super().__init__()
        self.in_row = piece.kind == OP
        self.copies = nn.ModuleList(_build(piece) for _ in range(copies))

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, H, W) -> the output of the last block, or the sum of all."""
        total: Tensor | None = None
        for copy in self.copies:
            if self.in_row:
                x = copy(x)
            else:
                total = copy(x) if total is None else total + copy(x)
        return x if total is None else total


class _Lateral(nn.Module):
    def __init__(self, piece: NetworkPiece) -> None:
        super().__init__()
        self.conv, self.factor = ConvNorm(piece.inputs, piece.outputs), piece.factor

    def forward(self, x: Tensor) -> Tensor:
        return enlarged(self.conv(x), self.factor)


class _LastMap(nn.Module):
    def __init__(self, stem: SearchedStem | InvertedStem) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.stem(x)[-1]
        return last


def _build(piece: NetworkPiece) -> nn.Module:
    if piece.kind == OP:
        return build_operation(piece.name, piece.outputs)
    if piece.kind == STEM:
        return _LastMap(InvertedStem() if piece.name else SearchedStem(piece.outputs, piece.factor))
    if piece.kind == ENTRY:
        name = piece.name or CONV_ENTRY
        return stage_entry(piece.inputs, piece.outputs, name=name, stride=piece.factor)
    if piece.kind == LATERAL:
        return _Lateral(piece)
    return embedding_head(piece.inputs, piece.outputs, piece.name)


class EmbeddingOnly(nn.Module):
    """An encoder as a graph of one input and one output.

    Args:
        encoder: left as it is.
    """

    def __init__(self, encoder: SearchedEncoder) -> None:
        """Hold it."""
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        embedding: Tensor = self.encoder(image, None).embedding
        return embedding


def measure_table(
    table: LatencyTable,
    pieces: Iterable[NetworkPiece | DecoderPiece],
    stopwatch: Stopwatch,
    file: Path,
    *,
    decoder_graph: DecoderGraphMaker,
    on_piece: Callable[[str], None] | None = None,
) -> int:
    """Time the pieces that a table lacks; the file is written after each, so an interrupted run is taken up again.

    A piece's time is the difference of a long and a short chain of it, over the difference of their lengths, medians
    of both: what a call costs by itself, and the change of layout at its ends, are in both. Decoders are graphs of
    their own in use, too, and are timed as a whole.

    Args:
        table: gets the entries; of the stopwatch's machine.
        pieces: wanted.
        stopwatch: of the runtime.
        file: to write.
        decoder_graph: of a network.
        on_piece: called with each key that is done.

    Returns:
        How many were timed.

    Raises:
        UsageError: the table is of another machine or runtime.
    """
    table.check_machine(stopwatch.machine, file)
    missing = table.missing(pieces)
    for piece in missing:
        if isinstance(piece, DecoderPiece):
            table.entries[piece.key] = _decoder_ms(piece, stopwatch, decoder_graph)
        else:
            table.entries[piece.key] = _piece_ms(piece, stopwatch)
        table.save(file)
        if on_piece:
            on_piece(piece.key)
    return len(missing)


def _lengths(piece: NetworkPiece) -> tuple[int, int]:
    """Of the short and the long chain: the smaller the piece, the longer, so that the difference can be told."""
    if piece.kind == STEM:
        return 1, 3
    return (2, 10) if piece.cost.macs < 4_000_000 else (2, 6) if piece.cost.macs < 40_000_000 else (1, 3)


def _piece_ms(piece: NetworkPiece, stopwatch: Stopwatch) -> float:
    x = torch.randn(1, piece.inputs, piece.side, piece.side)
    lengths = _lengths(piece)
    calls = [stopwatch.prepare(PieceChain(piece, copies).eval(), (x,)) for copies in lengths]
    short, long = (median(times) for times in stopwatch.turns(calls))
    return max((long - short) / (lengths[1] - lengths[0]), _FLOOR_MS)


def _decoder_ms(piece: DecoderPiece, stopwatch: Stopwatch, decoder_graph: DecoderGraphMaker) -> float:
    shell = Architecture(
        (StageShape(8, 16), StageShape(16, 16)), decoder=piece.shape
    )  # hardly anything but decoder
    network = PromptableSam(**shell.promptable(), drawn=piece.drawn).eval()
    embedding = torch.randn(1, piece.shape.width, piece.grid, piece.grid)
    corners = torch.tensor([[[[0.2, 0.3], [0.7, 0.9]]]]) * piece.grid * shell.stride
    labels = torch.tensor([[[2, 3]]])
    call = stopwatch.prepare(decoder_graph(network).eval(), (embedding, corners, labels))
    return median(stopwatch.turns([call])[0])


def sampled(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Different architectures of a space, at random; fewer where it has no more."""
    rng, found = random.Random(seed), dict[str, Architecture]()
    for _ in range(20 * count):
        if len(found) == min(count, space.count):
            break
        one = space.sample(rng)
        found[one.id] = one
    return list(found.values())


def measure_encoders(
    architectures: Sequence[Architecture],
    stopwatch: Stopwatch,
    *,
    at_once: int = 10,
    on_net: Callable[[str], None] | None = None,
) -> list[float]:
    """Median times of whole encoders with random weights [ms], `at_once` of them by turns."""
    found: list[float] = []
    for start in range(0, len(architectures), at_once):
        part = architectures[start : start + at_once]
        calls = []
        for one in part:
            graph = EmbeddingOnly(SearchedEncoder(architecture=one)).eval()
            calls.append(stopwatch.prepare(graph, (torch.randn(1, 3, one.size, one.size),)))
        found += [median(times) for times in stopwatch.turns(calls)]
        if on_net:
            for one in part:
                on_net(one.id)
    return found
