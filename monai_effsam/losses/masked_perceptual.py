# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Perceptual loss in image space: what a picture network sees of the picture through two masks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_effsam.errors import ShapeError
from monai_effsam.losses.picture_network import PictureNetwork

__all__ = ["MaskedPerceptualLoss"]


class MaskedPerceptualLoss(PictureNetwork):
    """Sum over maps of mean (phi_l(x m_s) - phi_l(x m_t))^2, with masks m = sigmoid(logits).

    A reading of KD SAM's perceptual term ("Efficient Knowledge Distillation of SAM for Medical Image Segmentation",
    arXiv 2501.16740, does not tell what its VGG is shown) in which VGG sees pictures, as it was trained to.

    Args: as of `PictureNetwork`.
    """

    def forward(self, input: Tensor, target: Tensor, picture: Tensor) -> Tensor:
        """Student's and teacher's mask logits, (B, 1, h, w) each, and the picture (B, 3, H, W), 0..1; a scalar.

        Raises:
            ShapeError: shapes that do not belong together.
        """
        if (
            input.shape != target.shape
            or input.ndim != 4
            or input.shape[1] != 1
            or len(picture) != len(input)
        ):
            raise ShapeError(
                f"MaskedPerceptualLoss: logits have shapes {tuple(input.shape)} and {tuple(target.shape)} for "
                f"{len(picture)} pictures, expected (B, 1, h, w) twice. Give one mask a picture."
            )
        picture = self._sized(picture.float())
        with torch.no_grad():
            theirs = self._maps(picture, target.detach())
        ours = self._maps(picture, input)
        return torch.stack([F.mse_loss(a, b) for a, b in zip(ours, theirs, strict=True)]).sum()

    def _maps(self, picture: Tensor, logits: Tensor) -> list[Tensor]:
        seen = picture * self._sized(logits.float().sigmoid())
        return self.seen(seen)

    def _sized(self, x: Tensor) -> Tensor:
        return F.interpolate(
            x, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True
        )
