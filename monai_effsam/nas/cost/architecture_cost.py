# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What an architecture costs before anything is built or timed, and the networks that it describes."""

from __future__ import annotations

from typing import NamedTuple

from monai_effsam.nas.cost.decoders import decoder_piece
from monai_effsam.nas.cost.pieces import encoder_pieces
from monai_effsam.nas.cost.table import LatencyTable, PredictedLatency
from monai_effsam.networks.blocks.operations import ComputeCost
from monai_effsam.networks.encoders.architecture import Architecture
from monai_effsam.networks.nets.promptable_sam import PromptableSam

__all__ = ["ArchitectureCost", "build_promptable", "cost_of", "predict"]


class ArchitectureCost(NamedTuple):
    """Closed forms of an architecture at its model size.

    Attributes:
        encoder: image to embedding.
        decoder: one box to all four masks.
    """

    encoder: ComputeCost
    decoder: ComputeCost


def cost_of(architecture: Architecture, *, drawn: bool = True) -> ArchitectureCost:
    """MACs and parameters of an architecture's encoder and decoder; `drawn` as of `DecoderPiece`."""
    total = ComputeCost()
    for piece in encoder_pieces(architecture):
        total = total.plus(piece.cost)
    return ArchitectureCost(total, decoder_piece(architecture, drawn=drawn).cost)


def predict(architecture: Architecture, table: LatencyTable, *, drawn: bool = True) -> PredictedLatency:
    """Times of an architecture by a table; all else as of `LatencyTable.predict`."""
    return table.predict(architecture, drawn=drawn)


def build_promptable(architecture: Architecture, *, drawn: bool = True) -> PromptableSam:
    """The whole promptable network of an architecture, weights at random; see `PromptableSam` for `drawn`."""
    return PromptableSam(**architecture.promptable(), drawn=drawn)
