# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Searchers that judge whole architectures: at random, by evolution, and by Optuna's NSGA-II."""

from __future__ import annotations

import importlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_effsam.errors import MissingExtraError, UsageError
from monai_effsam.nas.search.score_book import ScoreBook
from monai_effsam.nas.search.searcher import ArchitectureSearcher, RankedArchitecture, SearchProblem
from monai_effsam.nas.space.search_space import SearchSpace
from monai_effsam.networks.encoders.architecture import Architecture

__all__ = ["EvolutionarySearcher", "NsgaSearcher", "RandomSearcher", "affordable_sample"]

_TRIES = 2000


def affordable_sample(problem: SearchProblem, rng: random.Random, least: float = 0.0) -> Architecture:
    """An architecture at random within the budget, of a frame in which there is one.

    Args:
        problem: its space and budget.
        rng: to draw from.
        least: share of the budget that is to be spent; what comes nearest is taken if none is found.

    Raises:
        UsageError: none was found in many draws.
    """
    best: Architecture | None = None
    dearest = -1.0
    for _ in range(_TRIES):
        part = rng.choice(problem.frames)
        one = _thinned(problem, part, part.sample(rng), rng)
        cost = problem.price.whole(one)
        if cost <= problem.budget and cost > dearest:
            best, dearest = one, cost
            if cost >= least * problem.budget:
                return one
    if best is None:
        raise UsageError(
            f"search: {_TRIES} networks at random of {problem.space.name} were all over the budget of "
            f"{problem.budget:g} {problem.price.unit}. Allow more."
        )
    return best


def _thinned(
    problem: SearchProblem, part: SearchSpace, architecture: Architecture, rng: random.Random
) -> Architecture:
    """An architecture, mutated towards cheaper ones a while if it is over the budget: large spaces are mostly so."""
    cost = problem.price.whole(architecture)
    for _ in range(60):
        if cost <= problem.budget:
            break
        other = part.mutate(architecture, rng)
        if (theirs := problem.price.whole(other)) < cost:
            architecture, cost = other, theirs
    return architecture


@dataclass(frozen=True)
class RandomSearcher(ArchitectureSearcher):
    """The best of some at random, the baseline that every search has to beat.

    Args:
        count: architectures to judge.
        least: share of the budget that each spends if it can.
    """

    count: int = 20
    least: float = 0.8
    name = "random"

    def search(self, problem: SearchProblem) -> list[RankedArchitecture]:
        """See `ArchitectureSearcher`."""
        rng, book, judged = random.Random(problem.seed), self.open_book(problem), dict[Architecture, float]()
        for _ in range(20 * self.count):
            if len(judged) == self.count:
                break
            one = affordable_sample(problem, rng, self.least)
            if one not in judged:
                judged[one] = self.judge(problem, book, one)
        return self.ranked(problem, judged)


@dataclass(frozen=True)
class EvolutionarySearcher(ArchitectureSearcher):
    """Regularised evolution under a budget: parents are the best of a few, the oldest leave.

    "Regularized Evolution for Image Classifier Architecture Search", Real et al., arXiv 1802.01548; with crossover.

    Args:
        count: architectures to judge.
        population: alive at once.
        tournament: of which the best becomes a parent.
        crossover: share of children with two parents.
        changes: choices that a mutation changes.
    """

    count: int = 60
    population: int = 12
    tournament: int = 4
    crossover: float = 0.3
    changes: int = 2
    name = "evolution"

    def search(self, problem: SearchProblem) -> list[RankedArchitecture]:
        """See `ArchitectureSearcher`."""
        rng, book, judged = random.Random(problem.seed), self.open_book(problem), dict[Architecture, float]()
        alive: list[Architecture] = []
        for _ in range(20 * self.count):
            if len(judged) >= self.count:
                break
            child = self._child(problem, alive, judged, rng)
            if child in judged:
                continue
            judged[child] = self.judge(problem, book, child)
            alive = [*alive, child][-self.population :]  # the oldest leaves, however good
        return self.ranked(problem, judged)

    def _child(
        self,
        problem: SearchProblem,
        alive: Sequence[Architecture],
        judged: Mapping[Architecture, float],
        rng: random.Random,
    ) -> Architecture:
        """An affordable child of those alive; one at random while they are few."""
        for _ in range(100 if len(alive) >= self.population else 0):
            parent, other = (
                max(rng.sample(alive, min(self.tournament, len(alive))), key=judged.__getitem__) for _ in "ab"
            )
            if rng.random() < self.crossover:
                parent = problem.space.crossover(parent, other, rng)
            child = problem.space.mutate(parent, rng, self.changes)
            if problem.affordable(child) and child not in judged:
                return child
        return affordable_sample(problem, rng)


@dataclass(frozen=True)
class NsgaSearcher(ArchitectureSearcher):
    """Optuna's NSGA-II on score and cost together, the budget as a constraint.

    "A fast and elitist multiobjective genetic algorithm: NSGA-II", Deb et al., 10.1109/4235.996017.

    Args:
        count: architectures to propose; those over the budget are not judged.
        population: alive at once.
    """

    count: int = 60
    population: int = 12
    name = "nsga2"

    def search(self, problem: SearchProblem) -> list[RankedArchitecture]:
        """See `ArchitectureSearcher`; raises `MissingExtraError` without optuna."""
        try:
            optuna: Any = importlib.import_module("optuna")
        except ModuleNotFoundError as error:
            raise MissingExtraError("optuna", "nas") from error
        judged = dict[Architecture, float]()
        book, level = self.open_book(problem), optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            # optuna 5 is told the constraint by the trial, older ones ask for it
            asked = {} if hasattr(optuna.trial.Trial, "set_constraint") else {"constraints_func": _excess}
            sampler = optuna.samplers.NSGAIISampler(
                population_size=self.population, seed=problem.seed, **asked
            )
            study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
            rng = random.Random(problem.seed)
            for _ in range(min(self.population, self.count)):  # large spaces are mostly over the budget
                first = problem.space.encode(affordable_sample(problem, rng))
                study.enqueue_trial({c.name: i for c, i in zip(problem.space.choices, first, strict=True)})
            for _ in range(self.count):
                self._one(problem, book, study, judged)
        finally:
            optuna.logging.set_verbosity(level)
        return self.ranked(problem, judged)

    def _one(
        self, problem: SearchProblem, book: ScoreBook, study: Any, judged: dict[Architecture, float]
    ) -> None:
        """One proposal, judged if it is affordable; if not, its distance to the budget is all that is told."""
        trial = study.ask()
        vector = [trial.suggest_int(c.name, 0, len(c.options) - 1) for c in problem.space.choices]
        one = problem.space.decode(vector)
        cost = problem.price.whole(one)
        trial.set_user_attr("excess", cost - problem.budget)
        if hasattr(trial, "set_constraint"):
            trial.set_constraint("budget", cost - problem.budget)
        if cost <= problem.budget:
            judged[one] = self.judge(problem, book, one)
        worst = min(judged.values(), default=0.0)
        study.tell(trial, (judged.get(one, worst), cost))


def _excess(trial: Any) -> tuple[float]:
    return (float(trial.user_attrs["excess"]),)
