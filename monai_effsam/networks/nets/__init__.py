# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Whole models, one file a paper; they assemble parts and hold no layers of their own."""

from monai_effsam.networks.nets.esp_medsam import Decoded, EspMedSam
from monai_effsam.networks.nets.promptable_sam import PromptableSam, PromptedMasks
from monai_effsam.networks.nets.tic import TicClassifier, tic_features

__all__ = ["Decoded", "EspMedSam", "PromptableSam", "PromptedMasks", "TicClassifier", "tic_features"]
