# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Single operations that blocks are made of."""

from __future__ import annotations

from monai_effsam.networks.layers.cyclic_shift import CyclicShift
from monai_effsam.networks.layers.inter_pooling import InterPooling
from monai_effsam.networks.layers.layer_norm_2d import LayerNorm2d
from monai_effsam.networks.layers.local_attention import AttentionWindow, local_attention
from monai_effsam.networks.layers.msa_conv import MSAConv2d

__all__ = ["AttentionWindow", "CyclicShift", "InterPooling", "LayerNorm2d", "MSAConv2d", "local_attention"]
