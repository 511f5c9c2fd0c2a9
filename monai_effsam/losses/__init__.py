# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Losses in MONAI's shape: `loss(input, target)`, tensors in and out. A new one is a file here and a line below."""

from monai_effsam.losses.bernoulli_kl import BernoulliKlLoss
from monai_effsam.losses.class_kl import ClassKlLoss
from monai_effsam.losses.embedding_mse import EmbeddingMseLoss
from monai_effsam.losses.embedding_perceptual import (
    EmbeddingPerceptualLoss,
    ProjectedFeatures,
    PyramidFeatures,
)
from monai_effsam.losses.mask import SelfPromptMaskLoss
from monai_effsam.losses.masked_perceptual import MaskedPerceptualLoss
from monai_effsam.losses.patch import PatchPromptLoss, patch_target
from monai_effsam.losses.quality_mse import QualityMseLoss
from monai_effsam.losses.saliency import SaliencyTransferLoss
from monai_effsam.losses.self_prompting import SelfPromptingLoss, SelfPromptingTerms

__all__ = [
    "BernoulliKlLoss",
    "ClassKlLoss",
    "EmbeddingMseLoss",
    "EmbeddingPerceptualLoss",
    "MaskedPerceptualLoss",
    "PatchPromptLoss",
    "ProjectedFeatures",
    "PyramidFeatures",
    "QualityMseLoss",
    "SaliencyTransferLoss",
    "SelfPromptMaskLoss",
    "SelfPromptingLoss",
    "SelfPromptingTerms",
    "patch_target",
]
