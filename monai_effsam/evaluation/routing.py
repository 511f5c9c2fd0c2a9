# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How well a modality router tells pictures apart: on validation, on sources it never saw, on foreign pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.routing.foreign import drawn_pictures, fundus_photographs, photographs
from monai_effsam.data.routing.pictures import ModalityPicture, case_pictures, of_sources
from monai_effsam.data.sets import Case
from monai_effsam.errors import DataError
from monai_effsam.inference.router import ModalityRouter
from monai_effsam.metrics.calibration import calibration_error

__all__ = [
    "RouterAnswers",
    "answers_of",
    "foreign_pictures",
    "judged_sources",
    "kept_share",
    "router_milliseconds",
]

DRAWN_EACH = 20
"""Drawings of each kind that is tested on."""

_BATCH = 32


@dataclass(frozen=True)
class RouterAnswers:
    """What a router says of N pictures.

    Args:
        modalities: K names, in the router's order.
        threshold: the router's own.
        truth: (N,) index of the modality, K for foreign pictures.
        probability: (N, K + 1).
        sources: where each picture is from.
    """

    modalities: tuple[str, ...]
    threshold: float
    truth: NDArray[np.int64]
    probability: NDArray[np.float64]
    sources: tuple[str, ...]

    @property
    def best(self) -> NDArray[np.float64]:
        """(N,) probability of the likeliest known modality."""
        return np.asarray(self.probability[:, :-1].max(1))

    def named(self, threshold: float | None = None) -> NDArray[np.int64]:
        """(N,) index of the answer, K for "unknown".

        Args:
            threshold: the router's own by default; 0 answers with the likeliest modality whatever it is.
        """
        limit = self.threshold if threshold is None else threshold
        answer = np.where(self.best < limit, len(self.modalities), self.probability[:, :-1].argmax(1))
        return np.asarray(answer, np.int64)

    def confusion(self, threshold: float | None = None) -> NDArray[np.int64]:
        """(K + 1, K + 1) pictures: a row a truth, a column an answer."""
        table = np.zeros((len(self.modalities) + 1,) * 2, np.int64)
        np.add.at(table, (self.truth, self.named(threshold)), 1)
        return table

    def balanced_accuracy(self, threshold: float | None = None) -> float:
        """Mean over the modalities at hand of the share of their pictures that are named right."""
        table = self.confusion(threshold)[:-1]
        counts = table.sum(1)
        rows = counts > 0
        return float((np.diag(table[:, :-1])[rows] / counts[rows]).mean())

    def by_source(self, threshold: float | None = None) -> dict[str, tuple[int, int]]:
        """Source -> (pictures named right, pictures)."""
        right = self.named(threshold) == self.truth
        found: dict[str, tuple[int, int]] = {}
        for source, is_right in zip(self.sources, right.tolist(), strict=True):
            good, count = found.get(source, (0, 0))
            found[source] = good + is_right, count + 1
        return found

    def recall_threshold(self, recall: float) -> float:
        """The threshold at which a share of these (known) pictures keeps an answer."""
        return float(np.quantile(self.best, 1 - recall))

    def calibration_error(self) -> float:
        """Expected calibration error of the likeliest class, "unknown" among them."""
        said, right = self.probability.max(1), self.probability.argmax(1) == self.truth
        return calibration_error(said.tolist(), right.astype(float).tolist())

    def __add__(self, other: RouterAnswers) -> RouterAnswers:
        """The answers to both."""
        return RouterAnswers(
            self.modalities,
            self.threshold,
            np.concatenate([self.truth, other.truth]),
            np.concatenate([self.probability, other.probability]),
            self.sources + other.sources,
        )


def answers_of(router: ModalityRouter, pictures: Sequence[ModalityPicture]) -> RouterAnswers:
    """What a router says of pictures, each by itself, also if they are slices of one volume.

    Raises:
        DataError: there are none.
    """
    if not pictures:
        raise DataError("router: no pictures to judge it on, expected one at least. Name a folder of sets.")
    names = router.rule.modalities
    truth = [names.index(p.modality) if p.modality else len(names) for p in pictures]
    parts = [
        router.probabilities([p.image for p in pictures[start : start + _BATCH]])
        for start in range(0, len(pictures), _BATCH)
    ]
    return RouterAnswers(
        names,
        router.rule.threshold,
        np.array(truth),
        np.concatenate(parts),
        tuple(p.source for p in pictures),
    )


def judged_sources(
    router: ModalityRouter,
    cases: Sequence[Case],
    known: Mapping[Path, Sequence[ModalityPicture]] | None = None,
) -> RouterAnswers:
    """Answers to every picture of the sources that a router was not trained on, scikit-image's fundi among them.

    Args:
        router: its card tells which sources were left out.
        cases: of all sets and splits.
        known: pictures that were read before, by the file of their case.

    Raises:
        DataError: it was trained on all of them.
    """
    left_out = tuple(router.card.get("recipe", {}).get("left_out", ()))
    own, _ = of_sources(cases, left_out)
    if not own:
        raise DataError(
            "router: it was trained on every source, expected one with left_out. Train it with that."
        )
    read = known or {}
    pictures = [p for c in own for p in (read[c.image] if c.image in read else case_pictures(c))]
    return answers_of(router, [*pictures, *fundus_photographs()])


def foreign_pictures(each: int = DRAWN_EACH) -> list[ModalityPicture]:
    """Foreign pictures of the kinds that no router is trained on, `each` drawings a kind, and photographs."""
    return [*drawn_pictures("kept", each, seed=99), *photographs("kept")]


def kept_share(foreign: RouterAnswers, threshold: float) -> dict[str, tuple[int, int]]:
    """Kind of foreign picture -> (answered "unknown", pictures), and `all` of them."""
    found = foreign.by_source(threshold)
    right, count = (sum(values) for values in zip(*found.values(), strict=True))
    return {**found, "all": (right, count)}


def router_milliseconds(router: ModalityRouter, side: int = 512, rounds: int = 60) -> tuple[float, float]:
    """Median time of one picture: (network alone at its own size, all from a picture of `side` pixels) [ms]."""
    random = np.random.RandomState(0)
    small, large = (random.randint(0, 256, (n, n, 3)).astype(np.uint8) for n in (router.rule.spec.size, side))
    laps: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(rounds):
        for place, picture in enumerate((small, large)):
            start = time.perf_counter()
            router.tell_pixels([picture])
            laps[place].append((time.perf_counter() - start) * 1000)
    return median(laps[0]), median(laps[1])
