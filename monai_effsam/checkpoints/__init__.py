# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Weights from disk and back: checked, safe, never downloaded."""

from monai_effsam.checkpoints.model_file import LoadedModel, load_model, load_state, save_model

__all__ = ["LoadedModel", "load_model", "load_state", "save_model"]
