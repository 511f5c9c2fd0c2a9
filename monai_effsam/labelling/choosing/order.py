# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""In which order unlabelled images are offered: pure functions of scores, without servers or stores."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_effsam.labelling.choosing.diversity import distances_to
from monai_effsam.labelling.choosing.scores import ImageScores

__all__ = ["ORDERS", "Candidates"]

FOUND_SHARE = 2 / 3
"""Share of the foreground-aware random draws that must show something, as nnActive's (arXiv 2411.01987) 66 %."""


@dataclass(frozen=True)
class Candidates:
    """What there is to choose from.

    Args:
        names: unlabelled images.
        taken: labelled ones, and those that others label just now.
        scores: of those images that have some.
        random: source of chance.
    """

    names: Sequence[str]
    taken: Sequence[str]
    scores: Mapping[str, ImageScores]
    random: np.random.RandomState


Order = Callable[[Candidates], list[str]]


def _first(given: Candidates) -> list[str]:
    """By name, numbers by their value."""
    return sorted(
        given.names, key=lambda n: [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in _parts(n)]
    )


def _shuffled(given: Candidates) -> list[str]:
    """At random."""
    return [given.names[i] for i in given.random.permutation(len(given.names))]


def _foreground(given: Candidates) -> list[str]:
    """At random, but two of three must show something that the model outlines, while there are such images."""
    names = _shuffled(given)
    found = [n for n in names if n in given.scores and given.scores[n].foreground > 0]
    others = [n for n in names if n not in given.scores or given.scores[n].foreground <= 0]
    order: list[str] = []
    while found and others:
        order.append((found if given.random.rand() < FOUND_SHARE else others).pop())
    return [*order, *found, *others]


def _disagreement(given: Candidates) -> list[str]:
    """The most doubtful first: self-prompted and box-prompted mask differ, and the mask is undecided."""
    return _by(given, _doubts(given))


def _diversity(given: Candidates) -> list[str]:
    """The farthest from all that is labelled or lent."""
    return _by(given, _distances(given))


def _combined(given: Candidates) -> list[str]:
    """Doubtful and far: the ranks of both, multiplied."""
    return _by(given, _ranks(_doubts(given)) * _ranks(_distances(given)))


ORDERS: dict[str, tuple[str, Order]] = {
    "combined": ("Where the model is in doubt and the image is unlike all that is labelled", _combined),
    "diversity": ("Where the image is unlike all that is labelled", _diversity),
    "disagreement": ("Where the model disagrees with itself when prompted with its own box", _disagreement),
    "foreground": ("Any image, more often one where the model finds something", _foreground),
    "random": ("Any image", _shuffled),
    "first": ("By name", _first),
}
"""Name of a strategy -> what it does, in a few words for viewers, and its order; viewers offer the first one first."""


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]


def _by(given: Candidates, values: NDArray[np.float64]) -> list[str]:
    """The highest values first; images without scores, whose value is NaN, last and shuffled; ties at random."""
    chance = given.random.permutation(len(given.names))
    keys = np.where(np.isnan(values), -np.inf, values)
    return [given.names[i] for i in np.lexsort((chance, -keys))]


def _doubts(given: Candidates) -> NDArray[np.float64]:
    return np.array([given.scores[n].doubt if n in given.scores else np.nan for n in given.names], float)


def _distances(given: Candidates) -> NDArray[np.float64]:
    scored = [n for n in given.names if n in given.scores]
    values = np.full(len(given.names), np.nan)
    if scored:
        centres = [given.scores[n].pooled for n in given.taken if n in given.scores]
        rows = np.stack([given.scores[n].pooled for n in scored])
        far = distances_to(rows, np.stack(centres) if centres else np.zeros((0, rows.shape[1]), np.float32))
        values[[n in given.scores for n in given.names]] = far
    return values


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the values that are lower or equal, 0..1; NaN stays."""
    known = ~np.isnan(values)
    ranks = np.full(len(values), np.nan)
    ranks[known] = np.searchsorted(np.sort(values[known]), values[known], side="right") / max(1, known.sum())
    return ranks
