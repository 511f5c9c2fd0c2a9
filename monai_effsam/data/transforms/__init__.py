# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""MONAI dictionary transforms of this package."""

from monai_effsam.data.transforms.collate import collate_one
from monai_effsam.data.transforms.fit import (
    Fitted,
    FitToSpecd,
    ReadLabeld,
    StoredGridd,
    UndoSpecd,
    first_choice,
)
from monai_effsam.data.transforms.prompted import BoxOfLabeld, PromptedMaskd
from monai_effsam.data.transforms.tone import RandDegraded, RandToned
from monai_effsam.data.transforms.warp import RandFrameWarpd

__all__ = [
    "BoxOfLabeld",
    "FitToSpecd",
    "Fitted",
    "PromptedMaskd",
    "RandDegraded",
    "RandFrameWarpd",
    "RandToned",
    "ReadLabeld",
    "StoredGridd",
    "UndoSpecd",
    "collate_one",
    "first_choice",
]
