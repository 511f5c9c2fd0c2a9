# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Losses in MONAI's shape: `loss(input, target)`, tensors in and out. A new one is a file here and a line below."""

from monai_effsam.losses.mask import SelfPromptMaskLoss
from monai_effsam.losses.patch import PatchPromptLoss, patch_target

__all__ = ["PatchPromptLoss", "SelfPromptMaskLoss", "patch_target"]
