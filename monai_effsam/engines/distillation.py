# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""KD SAM's first stage: a student's image encoder learns to give its teacher's embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from monai_effsam.data.distilling import ViewBatch
from monai_effsam.losses import EmbeddingMseLoss
from monai_effsam.networks.encoders import ImageEncoder

__all__ = ["DistillationStep", "TermBalance", "embedding_errors"]


class TermBalance(nn.Module):
    """Lambda: given, or set by the first batch so that both terms weigh alike; part of a run's checkpoint.

    Args:
        weight: lambda; None to set it on the first batch.
    """

    weight: Tensor

    def __init__(self, weight: float | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(math.nan if weight is None else weight))

    def forward(self, mse: Tensor, perceptual: Tensor) -> Tensor:
        """Lambda for these terms."""
        if self.weight.isnan():
            self.weight.copy_(mse.detach() / perceptual.detach().clamp(min=1e-12))
        return self.weight


class DistillationStep(nn.Module):
    """Encoder and losses as one module: MSE + lambda x perceptual.

    "Efficient Knowledge Distillation of SAM for Medical Image Segmentation", arXiv 2501.16740, states both terms and
    neither lambda nor the features. Their ratio depends on the features, so by default lambda is set on the first
    batch, where both terms then weigh alike.

    Args:
        encoder: to be trained; modalities of a batch may be mixed.
        perceptual: (ours, theirs, batch) -> scalar, of `build_perceptual`; None for MSE alone.
        weight: lambda; None to set it on the first batch.
        mse: (ours, theirs, valid) -> scalar, the first term.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        perceptual: nn.Module | None = None,
        weight: float | None = None,
        mse: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.perceptual = encoder, perceptual
        self.mse = mse or EmbeddingMseLoss()
        self.balance = TermBalance(weight)

    def train(self, mode: bool = True) -> DistillationStep:
        """As of any module, but what the perceptual term is made of stays in eval mode."""
        super().train(mode)
        if self.perceptual is not None:
            self.perceptual.eval()
        return self

    def forward(self, batch: ViewBatch, step: int) -> dict[str, Tensor]:
        """Loss terms of a batch, both raw; `loss` is what to minimise."""
        ours = self.encoder(batch.image, batch.modality).embedding
        mse = self.mse(ours, batch.target, batch.valid)
        if self.perceptual is None:
            return {"loss": mse, "mse": mse.detach()}
        perceptual = self.perceptual(ours, batch.target, batch)
        return {
            "loss": mse + self.balance(mse, perceptual) * perceptual,
            "mse": mse.detach(),
            "perceptual": perceptual.detach(),
        }


@torch.no_grad()
def embedding_errors(
    encoder: ImageEncoder, batches: Iterable[ViewBatch], device: torch.device | str = "cpu"
) -> dict[str, float]:
    """How far a student's embeddings are from its teacher's, over batches; the encoder is put in eval mode.

    Returns:
        `mse`, the mean of what `EmbeddingMseLoss` gives for each image; `cosine`, the mean over valid positions.
    """
    encoder.eval()
    each = EmbeddingMseLoss(reduction="none")
    mse: list[Tensor] = []
    cosine: list[Tensor] = []
    for item in batches:
        batch = item.to(device)
        ours = encoder(batch.image, batch.modality).embedding.float()
        mse.append(each(ours, batch.target, batch.valid))
        alike = torch.cosine_similarity(ours, batch.target.float(), dim=1)[:, None] * batch.valid
        cosine.append(alike.flatten(1).sum(1) / batch.valid.flatten(1).sum(1).clamp(min=1))
    return {"mse": float(torch.cat(mse).mean()), "cosine": float(torch.cat(cosine).mean())}
