# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Losses in MONAI's shape: `loss(input, target)`, tensors in and out. A new one is a file here and a line below."""

from monai_effsam.losses.mask import SelfPromptMaskLoss
from monai_effsam.losses.patch import PatchPromptLoss, patch_target
from monai_effsam.losses.self_prompting import SelfPromptingLoss, SelfPromptingTerms

__all__ = ["PatchPromptLoss", "SelfPromptMaskLoss", "SelfPromptingLoss", "SelfPromptingTerms", "patch_target"]
