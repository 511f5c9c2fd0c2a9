# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What every training here shares: the learning rate over the steps, the optimizer, and the MONAI engine around a step.

A step is a module that takes a batch and the number of the step, and gives loss terms; `loss` is minimised.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from torch import nn

__all__ = ["Schedule", "TrainingBatch", "build_optimizer", "step_trainer"]


class TrainingBatch(Protocol):
    """Tensors that travel together."""

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""


_LEARNED = ("mask_query.weight", "token", "token.weight", "tokens.weight")
"""Ends of the names of queries and tokens, which do not decay."""


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


def build_optimizer(network: nn.Module, schedule: Schedule, weight_decay: float = 0.01) -> torch.optim.AdamW:
    """AdamW with a pretrained trunk at its own rate; norms, biases, queries and tokens do not decay."""
    found = (getattr(module, "pretrained_parameters", tuple) for module in network.modules())
    pretrained = {id(parameter) for parameters in found for parameter in parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith(
                ("mask_query.weight", "token", "token.weight", "tokens.weight")
            )
            trunk = ".trunk." in name or id(parameter) in pretrained
            groups.setdefault((trunk, decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": schedule.trunk_rate if trunk else schedule.rate,
                "base_lr": schedule.trunk_rate if trunk else schedule.rate,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (trunk, decays), parameters in groups.items()
        ],
        fused=True,  # one pass over all weights: a seventh of a decoder's step on a CPU
    )


def step_trainer(  # noqa: PLR0913  as MONAI's trainers
    step: nn.Module,
    loader: Iterable[TrainingBatch],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    epochs: int,
    epoch_length: int,
    device: torch.device | str = "cpu",
    gradient_limit: float = 5.0,
    handlers: Sequence[Any] = (),
) -> SupervisedTrainer:
    """A MONAI trainer around a step.

    Args:
        step: (batch, number) -> loss terms; bare, or wrapped for data parallelism.
        loader: gives batches.
        optimizer: its groups carry `base_lr`.
        schedule: learning rate by step.
        epochs: to train.
        epoch_length: steps of each.
        device: to train on.
        gradient_limit: norm at which gradients are clipped.
        handlers: MONAI handlers.
    """

    def iterate(engine: Engine, batch: TrainingBatch) -> dict[str, float]:
        index = engine.state.iteration - 1
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * schedule.factor(index)
        step.train()
        optimizer.zero_grad(set_to_none=True)
        terms = step(batch.to(device), index)
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
