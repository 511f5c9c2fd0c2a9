# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Operations that a searched network chooses from. Who adds one registers it in a file here, imported below."""

from __future__ import annotations

from monai_effsam.networks.blocks.operations.attention import AttentionOperation
from monai_effsam.networks.blocks.operations.contract import (
    LEAST_STEP,
    OPERATIONS,
    SKIP,
    WIDTH_STEP,
    ComputeCost,
    Operation,
    build_operation,
    convolution_cost,
    find_operation,
    register_operation,
)
from monai_effsam.networks.blocks.operations.convolutions import INVERTED, InvertedShape, ResidualOperation
from monai_effsam.networks.blocks.operations.mixing import LinearAttention, MsaConvOperation, PoolMixer

__all__ = [
    "INVERTED",
    "LEAST_STEP",
    "OPERATIONS",
    "SKIP",
    "WIDTH_STEP",
    "AttentionOperation",
    "ComputeCost",
    "InvertedShape",
    "LinearAttention",
    "MsaConvOperation",
    "Operation",
    "PoolMixer",
    "ResidualOperation",
    "build_operation",
    "convolution_cost",
    "find_operation",
    "register_operation",
]
