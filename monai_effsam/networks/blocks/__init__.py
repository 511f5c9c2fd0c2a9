# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Blocks that encoders and decoders are made of."""

from __future__ import annotations

from monai_effsam.networks.blocks.mbconv import ConvNorm, InvertedResidualBlock, MapMerging
from monai_effsam.networks.blocks.medical_vit_block import MedicalParts, MedicalVitBlock
from monai_effsam.networks.blocks.modality_controller import (
    ControllerBank,
    ControllerTokens,
    ModalityController,
    TokenMlp,
)
from monai_effsam.networks.blocks.necks import SamNeck
from monai_effsam.networks.blocks.tic_block import TicBlock, TicMerging, TicStem
from monai_effsam.networks.blocks.tic_folding import fold_tic_norms
from monai_effsam.networks.blocks.tiny_vit_block import BiasedWindowAttention, TinyVitBlock

__all__ = [
    "BiasedWindowAttention",
    "ControllerBank",
    "ControllerTokens",
    "ConvNorm",
    "InvertedResidualBlock",
    "MapMerging",
    "MedicalParts",
    "MedicalVitBlock",
    "ModalityController",
    "SamNeck",
    "TicBlock",
    "TicMerging",
    "TicStem",
    "TinyVitBlock",
    "TokenMlp",
    "fold_tic_norms",
]
