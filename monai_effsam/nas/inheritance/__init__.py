# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Searched encoders and supernets that begin with weights of a network which has seen photographs."""

from monai_effsam.nas.inheritance.inherit import Inheritance, inherit
from monai_effsam.nas.inheritance.trunk_weights import (
    INHERITED_TRUNK,
    LayerWeights,
    MobileTrunk,
    TrunkBlock,
    TrunkStage,
    read_trunk,
)

__all__ = [
    "INHERITED_TRUNK",
    "Inheritance",
    "LayerWeights",
    "MobileTrunk",
    "TrunkBlock",
    "TrunkStage",
    "inherit",
    "read_trunk",
]
