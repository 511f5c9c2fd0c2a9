# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training of the self-prompting model: one step, and the MONAI engine around it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.data.balanced import Batch
from monai_effsam.engines.prompting import SimulatedPrompts, simulate_prompts
from monai_effsam.losses.self_prompting import SelfPromptingLoss, masked_dice_bce, thresholded_iou
from monai_effsam.networks.encoders import Encoded
from monai_effsam.networks.nets import EspMedSam

__all__ = ["Schedule", "SelfPromptingStep", "build_optimizer", "self_prompting_trainer"]


@dataclass(frozen=True)
class Schedule:
    """Learning rate over the steps: a linear warm-up, then half a cosine down to nothing.

    Args:
        steps: in all.
        warmup: of them.
        rate: highest learning rate, of all but the pretrained trunk.
        trunk_rate: the same of the trunk.
    """

    steps: int
    warmup: int = 100
    rate: float = 1e-3
    trunk_rate: float = 3e-4

    def factor(self, step: int) -> float:
        """Share of the highest rate at a step, 0..1."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


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
        image, label, known = batch.image, batch.label, batch.known
        modality = torch.full((len(image),), batch.modality, device=image.device)
        encoded = self.network.encode(image, modality)
        found = self.network.decode(encoded, batch.modality)
        terms = self.loss(
            found.mask_logits, found.patch_logits, found.presence_logits, found.quality, label, known
        )
        out = {"loss": terms.total, **{k: v for k, v in terms._asdict().items() if k != "total"}}
        random = np.random.RandomState([self.seed, idist.get_rank(), step])
        if random.rand() < self.prompted_share:
            prompts = simulate_prompts(label.cpu(), known.cpu(), random)
            if prompts.valid.any():
                prompted = self._prompted(encoded, batch.modality, prompts, found.mask_logits, random)
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


def build_optimizer(network: EspMedSam, schedule: Schedule, weight_decay: float = 0.01) -> torch.optim.AdamW:
    """AdamW with the trunk at its own rate; norms, biases, queries and tokens do not decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith(("mask_query.weight", "token"))
            groups.setdefault((".trunk." in name, decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": schedule.trunk_rate if trunk else schedule.rate,
                "base_lr": schedule.trunk_rate if trunk else schedule.rate,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (trunk, decays), parameters in groups.items()
        ]
    )


def self_prompting_trainer(  # noqa: PLR0913  as MONAI's trainers
    step: nn.Module,
    loader: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    epochs: int,
    epoch_length: int,
    device: torch.device | str = "cpu",
    gradient_limit: float = 5.0,
    handlers: Sequence[Any] = (),
) -> SupervisedTrainer:
    """A MONAI trainer of the self-prompting model.

    Args:
        step: `SelfPromptingStep`, bare or wrapped for data parallelism.
        loader: gives `Batch`es.
        optimizer: its groups carry `base_lr`.
        schedule: learning rate by step.
        epochs: to train.
        epoch_length: steps of each.
        device: to train on.
        gradient_limit: norm at which gradients are clipped.
        handlers: MONAI handlers.
    """

    def iterate(engine: Engine, batch: Batch) -> dict[str, float]:
        index = engine.state.iteration - 1
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * schedule.factor(index)
        step.train()
        optimizer.zero_grad(set_to_none=True)
        terms = step(_to(batch, device), index)
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(step.parameters(), gradient_limit)
        optimizer.step()
        return {name: float(value.detach()) for name, value in terms.items()}

    return SupervisedTrainer(
        device=torch.device(device),
        max_epochs=epochs,
        train_data_loader=loader,
        network=step,
        optimizer=optimizer,
        loss_function=nn.Identity(),
        epoch_length=epoch_length,
        iteration_update=iterate,
        train_handlers=list(handlers) or None,
    )


def _to(batch: Batch, device: torch.device | str) -> Batch:
    return Batch(batch.image.to(device), batch.label.to(device), batch.known.to(device), batch.modality)
