# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training of the self-prompting model: one step."""

from __future__ import annotations

import ignite.distributed as idist
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.data.balanced import Batch
from monai_effsam.engines.prompting import SimulatedPrompts, simulate_prompts
from monai_effsam.losses.self_prompting import SelfPromptingLoss, masked_dice_bce, thresholded_iou
from monai_effsam.networks.encoders import Encoded
from monai_effsam.networks.nets import EspMedSam

__all__ = ["SelfPromptingStep"]


class SelfPromptingStep(nn.Module):
    """Network and loss as one module, so that one call covers a step (also under data parallelism).

    Args:
        network: to be trained.
        loss: of the unprompted pass.
        prompted_share: share of the steps that also decode with a simulated user's prompts.
        seed: of the simulated user.
    """

    def __init__(
        self,
        network: EspMedSam,
        loss: SelfPromptingLoss | None = None,
        *,
        prompted_share: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss or SelfPromptingLoss()
        self.prompted_share = prompted_share
        self.seed = seed

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Loss terms of a batch; `loss` is what to minimise."""
        image = batch.image
        modality = torch.full((len(image),), batch.modality, device=image.device)
        return self.losses(
            self.network.encode(image, modality), batch.label, batch.known, batch.modality, step
        )

    def losses(
        self, encoded: Encoded, label: Tensor, known: Tensor, modality: int, step: int
    ) -> dict[str, Tensor]:
        """Loss terms of images that are encoded already.

        Args:
            encoded: of B images of one modality.
            label: (B, T_m, H, W), 0 or 1.
            known: (B, T_m) bool.
            modality: index.
            step: number of the step; with the seed it decides what the simulated user does.
        """
        found = self.network.decode(encoded, modality)
        terms = self.loss(
            found.mask_logits, found.patch_logits, found.presence_logits, found.quality, label, known
        )
        out = {"loss": terms.total, **{k: v for k, v in terms._asdict().items() if k != "total"}}
        random = np.random.RandomState([self.seed, idist.get_rank(), step])
        if random.rand() < self.prompted_share:
            prompts = simulate_prompts(label.cpu(), known.cpu(), random)
            if prompts.valid.any():
                prompted = self._prompted(encoded, modality, prompts, found.mask_logits, random)
                out["loss"] = out["loss"] + prompted
                out["prompted"] = prompted.detach()
        return out

    def _prompted(
        self,
        encoded: Encoded,
        modality: int,
        prompts: SimulatedPrompts,
        first: Tensor,
        random: np.random.RandomState,
    ) -> Tensor:
        """Loss of the prompted object's mask; now and then the first pass's mask is refined."""
        device = first.device
        rows = torch.arange(len(first), device=device)
        target = prompts.target.to(device)
        masks = first.detach()[rows, target][:, None] if random.rand() < 0.3 else None
        found = self.network.decode(
            encoded,
            modality,
            points=None if prompts.points is None else prompts.points.to(device),
            labels=None if prompts.labels is None else prompts.labels.to(device),
            boxes=None if prompts.boxes is None else prompts.boxes.to(device),
            masks=masks,
        )
        logits = found.mask_logits[rows, target][:, None]
        soft = F.adaptive_avg_pool2d(prompts.label.to(device), (logits.shape[-2], logits.shape[-1]))
        valid = prompts.valid.to(device)[:, None]
        mask = masked_dice_bce(logits, soft, valid)
        gap = found.quality[rows, target][:, None] - thresholded_iou(logits.detach(), soft)
        return mask + 0.2 * (gap.square() * valid).sum() / valid.sum()
