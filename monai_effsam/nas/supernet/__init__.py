# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One network that holds all architectures of a frame, its probabilities, their mean cost, and what comes out of it."""

from monai_effsam.nas.supernet.derivation import (
    argmax_architecture,
    budgeted_architectures,
    derived_encoder,
    recalibrate,
)
from monai_effsam.nas.supernet.drawing_lots import ChoiceLot, LotSettings, draw_lots, fixed_lots
from monai_effsam.nas.supernet.expected_cost import (
    ArchitecturePrice,
    ExpectedCost,
    check_budget,
    latency_price,
    mac_price,
)
from monai_effsam.nas.supernet.macros import FRAME, frames, narrowed
from monai_effsam.nas.supernet.search_supernet import SearchSupernet

__all__ = [
    "FRAME",
    "ArchitecturePrice",
    "ChoiceLot",
    "ExpectedCost",
    "LotSettings",
    "SearchSupernet",
    "argmax_architecture",
    "budgeted_architectures",
    "check_budget",
    "derived_encoder",
    "draw_lots",
    "fixed_lots",
    "frames",
    "latency_price",
    "mac_price",
    "narrowed",
    "recalibrate",
]
