# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Weights from disk and back: checked, safe, never downloaded."""

from monai_effsam.checkpoints.families import FAMILIES
from monai_effsam.checkpoints.load import LoadedCheckpoint, load_checkpoint
from monai_effsam.checkpoints.model_file import LoadedModel, load_model, load_state, save_model

__all__ = [
    "FAMILIES",
    "LoadedCheckpoint",
    "LoadedModel",
    "load_checkpoint",
    "load_model",
    "load_state",
    "save_model",
]
