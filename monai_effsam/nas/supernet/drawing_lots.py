# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How a supernet chooses in one step: soft mixtures, or one option of each choice with a gradient to all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from monai_effsam.errors import SpecError

__all__ = ["ChoiceLot", "LotSettings", "draw_lots", "fixed_lots"]


class ChoiceLot(NamedTuple):
    """What one choice came to in one step.

    Attributes:
        chosen: index of the option that counts; in a soft mixture the likeliest one.
        options: indices that are computed.
        weights: of these, (len(options),); None where only the chosen one is computed and nothing is learnt.
        soft: whether all options are mixed.
    """

    chosen: int
    options: tuple[int, ...]
    weights: Tensor | None = None
    soft: bool = False


@dataclass(frozen=True)
class LotSettings:
    """How lots are drawn.

    Args:
        mode: `gumbel`, hard draws with straight-through gradients (GDAS, arXiv 1910.04465), or `softmax`, the
            mixture of DARTS (arXiv 1806.09055).
        paths: options of a choice that are computed where probabilities learn, the drawn one among them; 0 for all.
            Two are ProxylessNAS's (arXiv 1812.00332): their weights are renormalised, and what all have in common
            drops out of the gradient.

    Raises:
        SpecError: no such mode, or a single path, which compares nothing.
    """

    mode: Literal["gumbel", "softmax"] = "gumbel"
    paths: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.mode not in ("gumbel", "softmax"):
            raise SpecError(f"LotSettings: mode is '{self.mode}', expected 'gumbel' or 'softmax'.")
        if self.paths < 0 or self.paths == 1:
            raise SpecError(f"LotSettings: paths are {self.paths}, expected 0 for all, or 2 or more.")


def draw_lots(
    logits: Mapping[str, Tensor],
    temperature: float,
    generator: torch.Generator,
    settings: LotSettings = LotSettings(),
    *,
    learning: bool = True,
) -> dict[str, ChoiceLot]:
    """A lot for each choice; in float32 whatever the precision around it.

    Args:
        logits: name -> (K,).
        temperature: of the softmax; hard draws follow the logits' own distribution at any.
        generator: of the CPU; processes that share its seed draw alike.
        settings: how.
        learning: whether the logits are to get gradients; hard draws then compute several options.
    """
    return {name: _lot(x.float(), temperature, generator, settings, learning) for name, x in logits.items()}


def _lot(
    logits: Tensor, temperature: float, generator: torch.Generator, settings: LotSettings, learning: bool
) -> ChoiceLot:
    count = len(logits)
    noise = -torch.empty(count).exponential_(generator=generator).clamp(min=1e-20).log().to(logits.device)
    if count == 1:
        return ChoiceLot(0, (0,))
    if settings.mode == "softmax":
        mixed = (logits / temperature).softmax(0)
        weights = mixed if learning else mixed.detach()
        return ChoiceLot(int(mixed.argmax()), tuple(range(count)), weights, soft=True)
    noisy = logits + noise
    order = noisy.detach().argsort(descending=True).tolist()  # Gumbel's top k: drawn without putting back
    if not learning:
        return ChoiceLot(order[0], (order[0],))
    options = tuple(sorted(order[: settings.paths or count]))
    soft = (noisy[list(options)] / temperature).softmax(0)
    hard = torch.zeros_like(soft)
    hard[options.index(order[0])] = 1.0
    return ChoiceLot(order[0], options, hard + (soft - soft.detach()))


def fixed_lots(chosen: Mapping[str, int]) -> dict[str, ChoiceLot]:
    """Lots that are no lots: the given option of each choice."""
    return {name: ChoiceLot(index, (index,)) for name, index in chosen.items()}
