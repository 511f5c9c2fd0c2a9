# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""KD SAM's first stage: a student's image encoder learns to give its teacher's embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from monai_effsam.data.distilling import ViewBatch
from monai_effsam.engines.distilling_terms import DistillationTerms, Seen, watched_encoder
from monai_effsam.losses import EmbeddingMseLoss
from monai_effsam.networks.encoders import ImageEncoder

__all__ = ["DistillationStep", "TermBalance", "held_out_errors"]


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
        """Lambda for these terms; those of pictures that are not trained on do not set it."""
        if not self.weight.isnan():
            return self.weight
        weight = mse.detach() / perceptual.detach().clamp(min=1e-12)
        if self.training:
            self.weight.copy_(weight)
        return weight


class DistillationStep(nn.Module):
    """Encoder and losses as one module: MSE + lambda x perceptual, and logits and saliency where they are wanted.

    "Efficient Knowledge Distillation of SAM for Medical Image Segmentation", arXiv 2501.16740, states both terms and
    neither lambda nor the features. Their ratio depends on the features, so by default lambda is set on the first
    batch, where both terms then weigh alike.

    Args:
        encoder: to be trained; modalities of a batch may be mixed.
        perceptual: (ours, theirs, batch) -> scalar, of `build_perceptual`; None for MSE alone.
        weight: lambda; None to set it on the first batch.
        mse: (ours, theirs, valid) -> scalar, the first term.
        mse_weight: of the first term; 0 leaves it to be told only.
        terms: logits and saliency, of `build_terms`.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        perceptual: nn.Module | None = None,
        weight: float | None = None,
        mse: nn.Module | None = None,
        *,
        mse_weight: float = 1.0,
        terms: DistillationTerms | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.perceptual = encoder, perceptual
        self.mse, self.mse_weight, self.terms = mse or EmbeddingMseLoss(), mse_weight, terms
        self.balance = TermBalance(weight)

    def train(self, mode: bool = True) -> DistillationStep:
        """As of any module, but what the perceptual term is made of stays in eval mode."""
        super().train(mode)
        if self.perceptual is not None:
            self.perceptual.eval()
        return self

    def forward(self, batch: ViewBatch, step: int) -> dict[str, Tensor]:
        """Loss terms of a batch, all raw; `loss` is what to minimise."""
        return self.losses(self.seen(self.encoder, batch), batch)

    def seen(self, encoder: ImageEncoder, batch: ViewBatch) -> Seen:
        """What the terms need of an encoder's pass over a batch."""
        return watched_encoder(encoder, batch, "none" if self.terms is None else self.terms.saliency)

    def losses(self, seen: Seen, batch: ViewBatch) -> dict[str, Tensor]:
        """The terms, as `forward` gives them."""
        mse = self.mse(seen.embedding, batch.target, batch.valid)
        loss, told = self.mse_weight * mse, {"mse": mse.detach()}
        if self.perceptual is not None:
            perceptual = self.perceptual(seen.embedding, batch.target, batch)
            loss = loss + self.balance(mse, perceptual) * perceptual
            told["perceptual"] = perceptual.detach()
        if self.terms is not None:
            for name, value in self.terms(seen, batch).items():
                loss = loss + self.terms.weights[name] * value
                told[name] = value.detach()
        return {"loss": loss, **told}


def held_out_errors(
    step: DistillationStep,
    encoder: ImageEncoder,
    batches: Iterable[ViewBatch],
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """What an encoder has not learnt yet, over batches that it does not learn from.

    Args:
        step: whose terms are asked; it and the encoder are put in eval mode.
        encoder: in the place of the step's own.
        batches: as those to train on.
        device: of step and encoder.

    Returns:
        The terms of the step and their sum `loss`, and the `cosine` of the embeddings over valid positions: means over
        the images.
    """
    step.eval()
    encoder.eval()
    totals: dict[str, float] = {}
    count = 0
    for item in batches:
        batch = item.to(device)
        seen = step.seen(encoder, batch)  # with gradients: some saliency is made of them
        alike = (
            torch.cosine_similarity(seen.embedding.float(), batch.target.float(), dim=1)[:, None]
            * batch.valid
        )
        cosine = alike.flatten(1).sum(1) / batch.valid.flatten(1).sum(1).clamp(min=1)
        for name, value in {**step.losses(seen, batch), "cosine": cosine.mean()}.items():
            totals[name] = totals.get(name, 0.0) + len(batch.image) * float(value.detach())
        count += len(batch.image)
    return {name: total / count for name, total in totals.items()}
