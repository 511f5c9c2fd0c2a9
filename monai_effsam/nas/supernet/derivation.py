# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""From a trained supernet to networks: the likeliest architectures that a budget allows, and their weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_effsam.errors import UsageError
from monai_effsam.nas.supernet.expected_cost import ExpectedCost
from monai_effsam.nas.supernet.search_supernet import SearchSupernet
from monai_effsam.networks.encoders.architecture import Architecture
from monai_effsam.networks.encoders.searched import SearchedEncoder

__all__ = [
    "ChosenVector",
    "argmax_architecture",
    "budgeted_architectures",
    "budgeted_vectors",
    "derived_encoder",
    "recalibrate",
]

_BINS = 500  # steps in which a budget is spent


class ChosenVector(NamedTuple):
    """An option for every choice.

    Attributes:
        score: sum of what its options score.
        cost: of the network, exactly.
        chosen: choice -> index.
    """

    score: float
    cost: float
    chosen: dict[str, int]


def argmax_architecture(supernet: SearchSupernet) -> Architecture:
    """The likeliest option of every choice, whatever it costs."""
    found = supernet.probabilities()
    return supernet.space.decode([int(found[c.name].argmax()) for c in supernet.space.choices])


def budgeted_architectures(
    supernet: SearchSupernet, cost: ExpectedCost, budget: float, count: int = 1
) -> list[Architecture]:
    """The likeliest architectures within a budget, the best for each combination of widths, best first.

    Args:
        supernet: whose logits count.
        cost: of its space.
        budget: in the cost's unit.
        count: most architectures.

    Raises:
        UsageError: no architecture is within the budget.
    """
    scores = {name: x.detach().float().log_softmax(0).cpu() for name, x in supernet.choice_logits().items()}
    found: dict[str, Architecture] = {}
    for one in budgeted_vectors(scores, cost, budget):
        chosen = [one.chosen.get(choice.name, 0) for choice in supernet.space.choices]
        architecture = supernet.space.decode(chosen)
        found.setdefault(architecture.id, architecture)
        if len(found) == count:
            break
    if not found:
        raise UsageError(
            f"search: no architecture of {supernet.space.name} costs at most {budget:g} {cost.unit}. Allow more."
        )
    return list(found.values())


def budgeted_vectors(
    scores: Mapping[str, Tensor], cost: ExpectedCost, budget: float | None
) -> list[ChosenVector]:
    """For every combination of the choices that slots depend on, the options of the slots that score most.

    A multiple-choice knapsack, solved in steps of a 500th of the budget, each cost rounded up: never over the budget,
    and at most a slot's rounding short of the best. Of equal scores the dearer one is taken.

    Args:
        scores: choice -> (K,).
        cost: of the space.
        budget: in its unit; None for the cheapest slots.
    """
    slots = [term for term in cost.terms if ".op" in term.names[-1]]
    rest = [term for term in cost.terms if ".op" not in term.names[-1]]
    names = list(dict.fromkeys(name for term in rest for name in term.names))
    counts = cost.options()
    points = {name: np.asarray(scores[name], np.float64) for name in counts}
    found = []
    for pick in product(*(range(counts[name]) for name in names)):
        chosen = dict(zip(names, pick, strict=True))
        spent = cost.frame + sum(float(term.prices[tuple(chosen[n] for n in term.names)]) for term in rest)
        if budget is not None and spent > budget:
            continue
        prices = [np.asarray(term.prices[chosen[term.names[0]]], np.float64) for term in slots]
        worth = [points[term.names[-1]] for term in slots]
        if budget is None:
            best = [int(price.argmin()) for price in prices]
        else:
            best = _knapsack(prices, worth, budget - spent, budget)
        whole = chosen | {term.names[-1]: i for term, i in zip(slots, best, strict=True)}
        score = float(sum(points[name][i] for name, i in whole.items()))
        price = spent + float(sum(p[i] for p, i in zip(prices, best, strict=True)))
        found.append(ChosenVector(score, price, whole))
    return sorted(found, key=lambda one: (-one.score, -one.cost))


def _knapsack(
    prices: list[NDArray[np.float64]], worth: list[NDArray[np.float64]], left: float, budget: float
) -> list[int]:
    """An option for each slot, of the highest sum of worths whose prices are within what is left."""
    step = max(left, 1e-12) / _BINS
    value = np.zeros(_BINS + 1)
    taken = np.zeros((len(prices), _BINS + 1), np.int64)
    weights = [np.ceil(price / step - 1e-9).astype(np.int64) for price in prices]
    for slot, (weight, price, points) in enumerate(zip(weights, prices, worth, strict=True)):
        options = np.full((len(weight), _BINS + 1), -np.inf)
        for i, w in enumerate(weight):
            if w <= _BINS:
                # of equal scores the dearer: probabilities that learnt nothing do not make the network small
                options[i, w:] = value[: _BINS + 1 - w] + points[i] + 1e-9 * price[i] / budget
        taken[slot], value = options.argmax(0), options.max(0)
    at, chosen = _BINS, [0] * len(prices)
    for slot in reversed(range(len(prices))):
        chosen[slot] = int(taken[slot, at])
        at -= int(weights[slot][chosen[slot]])
    return chosen


def derived_encoder(supernet: SearchSupernet, architecture: Architecture) -> SearchedEncoder:
    """The plain network of an architecture, with the supernet's weights, in evaluation mode.

    Its running statistics are those that `recalibrate` left in the supernet.

    Raises:
        UsageError: the architecture is not in the supernet's space.
    """
    encoder = SearchedEncoder(architecture=architecture)
    state = {name: tensor.detach().clone() for name, tensor in supernet.path_state(architecture).items()}
    missing, unexpected = encoder.load_state_dict(state, strict=False)
    norms = [name for name, module in encoder.named_modules() if isinstance(module, nn.BatchNorm2d)]
    affine = {f"{name}.{part}" for name in norms for part in ("weight", "bias")}
    if unexpected or set(missing) - affine:
        raise AssertionError(f"supernet and network differ: {sorted(set(missing) - affine)}, {unexpected}")
    return encoder.to(next(supernet.parameters()).device).eval()


@torch.no_grad()
def recalibrate(supernet: SearchSupernet, architecture: Architecture, images: Iterable[Tensor]) -> None:
    """Fill the supernet's running statistics for one architecture, from batches of images (B, 3, H, W).

    What other architectures share of them is overwritten.
    """
    encoder = derived_encoder(supernet, architecture)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over the batches
    encoder.train()
    for image in images:
        encoder(image, None)
    fresh = copy.copy(encoder.state_dict())
    for name, buffer in supernet.path_state(architecture).items():
        if "running_" in name or name.endswith("num_batches_tracked"):
            buffer.copy_(fresh[name])
