# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Constants of a differentiable search, and what they come to at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from monai_effsam.errors import SpecError
from monai_effsam.nas.supernet import LotSettings

__all__ = ["DifferentiableSettings", "SearchMoment"]


class SearchMoment(NamedTuple):
    """What holds at one step.

    Attributes:
        temperature: of the draws.
        auxiliary: beta of DARTS-.
        skip_dropout: of `skip`.
        rate: of the weights.
        choosing: whether the logits learn.
    """

    temperature: float
    auxiliary: float
    skip_dropout: float
    rate: float
    choosing: bool


@dataclass(frozen=True)
class DifferentiableSettings:
    """How a supernet is searched: bi-level, first order.

    The guards are warm-up, auxiliary, skip dropout and the hinge; each has its own switch, so that their worth can be
    measured. A cost without hinge also rewards `skip` where there is budget left.

    Args:
        epochs: of the batches for the weights.
        warm_up: share of the steps in which the logits stay.
        lots: how choices are drawn.
        temperature: first and last, exponential between.
        auxiliary: beta at the beginning; goes to 0 linearly.
        skip_dropout: at the beginning; goes to 0 linearly.
        rate: of the weights, AdamW; half a cosine after a twentieth of the steps.
        weight_decay: of the weights; the logits never decay.
        choice_rate: of the logits, Adam with betas (0.5, 0.999). DARTS' 3e-4 is for ten thousand steps.
        cost_weight: of the relative excess over the budget.
        hinge: count only what is over the budget.
        gradient_limit: norm at which gradients are clipped, of weights and of logits.
        seed: of all draws.

    Raises:
        SpecError: impossible numbers.
    """

    epochs: int = 30
    warm_up: float = 0.25
    lots: LotSettings = field(default_factory=LotSettings)
    temperature: tuple[float, float] = (5.0, 0.5)
    auxiliary: float = 1.0
    skip_dropout: float = 0.1
    rate: float = 1e-3
    weight_decay: float = 0.01
    choice_rate: float = 0.02
    cost_weight: float = 1.0
    hinge: bool = True
    gradient_limit: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.epochs < 1 or not 0 <= self.warm_up < 1 or min(self.temperature) <= 0:
            raise SpecError(
                f"DifferentiableSettings: epochs {self.epochs}, warm_up {self.warm_up}, temperature "
                f"{self.temperature}, expected at least 1, a share below 1, and positive numbers."
            )

    def at(self, step: int, steps: int) -> SearchMoment:
        """What holds at a step of so many."""
        done = step / max(1, steps - 1)
        first, last = self.temperature
        rise = max(1, steps // 20)
        factor = (
            (step + 1) / rise
            if step < rise
            else 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))
        )
        return SearchMoment(
            first * (last / first) ** done,
            self.auxiliary * (1 - done),
            self.skip_dropout * (1 - done),
            self.rate * factor,
            step >= self.warm_up * steps,
        )
