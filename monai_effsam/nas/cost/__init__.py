# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What architectures cost: MACs and parameters by closed forms, times by a table measured where they run."""

from monai_effsam.nas.cost.architecture_cost import (
    ArchitectureCost,
    build_promptable,
    cost_of,
    predict,
)
from monai_effsam.nas.cost.decoders import DecoderPiece, decoder_piece, space_decoders
from monai_effsam.nas.cost.fitting import check_table, fit_table, prediction_quality
from monai_effsam.nas.cost.measuring import Stopwatch, measure_encoders, measure_table, sampled
from monai_effsam.nas.cost.pieces import NetworkPiece, encoder_pieces, space_pieces
from monai_effsam.nas.cost.table import LatencyFit, LatencyTable, PredictedLatency

__all__ = [
    "ArchitectureCost",
    "DecoderPiece",
    "LatencyFit",
    "LatencyTable",
    "NetworkPiece",
    "PredictedLatency",
    "Stopwatch",
    "build_promptable",
    "check_table",
    "cost_of",
    "decoder_piece",
    "encoder_pieces",
    "fit_table",
    "measure_encoders",
    "measure_table",
    "predict",
    "prediction_quality",
    "sampled",
    "space_decoders",
    "space_pieces",
]
