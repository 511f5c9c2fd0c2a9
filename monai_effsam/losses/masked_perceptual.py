# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Perceptual loss in image space: what a picture network sees of the picture through two masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.errors import ShapeError
from monai_effsam.losses.embedding_perceptual import frozen_layers, tapped_maps

__all__ = ["MaskedPerceptualLoss"]


class MaskedPerceptualLoss(nn.Module):
    """Sum over maps of mean (phi_l(x m_s) - phi_l(x m_t))^2, with masks m = sigmoid(logits).

    A reading of KD SAM's perceptual term ("Efficient Knowledge Distillation of SAM for Medical Image Segmentation",
    arXiv 2501.16740, does not tell what its VGG is shown) in which VGG sees pictures, as it was trained to.

    Args:
        layers: of the image network, such as torchvision's `vgg19().features`; a frozen copy is kept.
        taps: indices of the layers whose output counts; relu2_2 and relu3_3 in VGG-19 are 8 and 15.
        size: side of the picture that it is shown [px].
        mean: that the network's pictures are normalised with.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: nn.Sequential,
        taps: Sequence[int] = (8, 15),
        *,
        size: int = 128,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        self.layers = frozen_layers(layers, max(taps) + 1)
        self.taps, self.size = frozenset(taps), size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

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
        return tapped_maps(self.layers, (seen - self.mean) / self.std, self.taps)

    def _sized(self, x: Tensor) -> Tensor:
        return F.interpolate(
            x, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True
        )
