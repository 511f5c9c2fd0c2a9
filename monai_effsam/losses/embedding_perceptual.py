# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Perceptual loss between embeddings: distances of what a frozen feature network sees in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from monai_effsam.errors import ShapeError
from monai_effsam.losses.picture_network import PictureNetwork, frozen_layers, tapped_maps

__all__ = [
    "EmbeddingPerceptualLoss",
    "ProjectedFeatures",
    "PyramidFeatures",
    "frozen_layers",
    "tapped_maps",
]

Features = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""Embedding and the teacher's embedding, which may set a scale, both (B, C, h, w) -> feature maps of the first."""


class EmbeddingPerceptualLoss(_Loss):
    """Sum over feature maps of w_l mean (phi_l(input) - phi_l(target))^2, KD SAM's second term.

    "Efficient Knowledge Distillation of SAM for Medical Image Segmentation", arXiv 2501.16740, tells of VGG features
    and no more. What phi is, is the caller's choice: `PyramidFeatures` of SAM's own upscaling path needs no further
    weights, `ProjectedFeatures` puts embeddings through an image network.

    Args:
        features: frozen; gradients pass through it to the student only.
        weights: of the maps; ones by default.
    """

    def __init__(self, features: Features, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.features = features
        self.weights = None if weights is None else tuple(weights)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Student's and teacher's embeddings, (B, C, h, w) each; a scalar.

        Raises:
            ShapeError: the shapes differ.
            ValueError: another number of maps than of weights.
        """
        if input.shape != target.shape or input.ndim != 4:
            raise ShapeError(
                f"EmbeddingPerceptualLoss: target has shape {tuple(target.shape)}, expected the input's"
                f" {tuple(input.shape)} and (B, C, h, w). Resize one to the other first."
            )
        reference = target.detach().float()
        with torch.no_grad():
            theirs = self.features(reference, reference)
        ours = self.features(input.float(), reference)
        weights = (1.0,) * len(ours) if self.weights is None else self.weights
        if len(weights) != len(ours):
            raise ValueError(
                f"EmbeddingPerceptualLoss: {len(weights)} weights for {len(ours)} feature maps, expected one a map."
            )
        terms = [w * F.mse_loss(a, b) for w, a, b in zip(weights, ours, theirs, strict=True)]
        return torch.stack(terms).sum()


class PyramidFeatures(nn.Module):
    """Maps of a frozen copy of layers that take an embedding, such as SAM's `mask_decoder.output_upscaling`.

    Args:
        layers: run one after the other.
        taps: indices of the layers whose output counts; in SAM's upscaling 2 and 4, after each activation.
    """

    def __init__(self, layers: nn.Sequential, taps: Sequence[int] = (2, 4)) -> None:
        super().__init__()
        self.layers = frozen_layers(layers, max(taps) + 1)
        self.taps = frozenset(taps)

    def forward(self, embedding: Tensor, reference: Tensor) -> list[Tensor]:
        """(B, C, h, w) -> one map a tap; the reference has no say."""
        return tapped_maps(self.layers, embedding, self.taps)


class ProjectedFeatures(PictureNetwork):
    """Maps of a frozen image network that is shown an embedding as if it were a picture.

    Channels are averaged in three groups. The teacher's smallest and largest value of each image become 0 and 1 for
    both sides: with each side's own extremes a student of three times the scale would go unnoticed.

    Args: as of `PictureNetwork`.
    """

    def forward(self, embedding: Tensor, reference: Tensor) -> list[Tensor]:
        """(B, C, h, w) -> one map a tap."""
        scale = _grouped(reference).flatten(1)
        low, high = (edge.view(-1, 1, 1, 1) for edge in (scale.amin(1), scale.amax(1)))
        picture = (_grouped(embedding) - low) / (high - low).clamp(min=1e-6)
        picture = F.interpolate(picture, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return self.seen(picture)


def _grouped(embedding: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 3, h, w), means of three groups of channels."""
    return torch.stack([group.mean(1) for group in embedding.tensor_split(3, 1)], 1)
