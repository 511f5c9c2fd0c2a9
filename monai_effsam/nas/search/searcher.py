# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What every searcher takes and gives: a space, a price, a budget and an objective in, ranked architectures out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch.distributed as dist

from monai_effsam.errors import UsageError
from monai_effsam.nas.search.score_book import ScoreBook
from monai_effsam.nas.space.search_space import SearchSpace
from monai_effsam.nas.supernet import ArchitecturePrice, ExpectedCost, check_budget, frames
from monai_effsam.networks.encoders.architecture import Architecture

__all__ = ["ArchitectureSearcher", "Objective", "RankedArchitecture", "SearchProblem"]

Objective = Callable[[Architecture], float]
"""Architecture -> score, larger is better; a pure function, or resuming would not give the same."""


class RankedArchitecture(NamedTuple):
    """An architecture that was scored.

    Attributes:
        architecture: within the budget.
        score: of the objective, larger is better.
        cost: by the price, in its unit.
    """

    architecture: Architecture
    score: float
    cost: float


@dataclass(frozen=True)
class SearchProblem:
    """What is looked for.

    Args:
        space: to look in.
        price: of an architecture and of its parts.
        budget: most that an architecture may cost, in the price's unit.
        objective: judges an architecture.
        seed: of everything that is drawn.
        book: file of the scores found so far, JSON lines; a searcher that is started again finds them there and goes
            the same way without judging anything twice. None for memory alone.
        identity: what the objective depends on; a book of another one is refused.
        on_score: told of each architecture that was judged.

    Raises:
        UsageError: the budget is below the smallest network of the space.
    """

    space: SearchSpace
    price: ArchitecturePrice
    budget: float
    objective: Objective
    seed: int = 0
    book: Path | None = None
    identity: str = ""
    on_score: Callable[[RankedArchitecture], object] | None = None
    frames: tuple[SearchSpace, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Leave out the frames in which no network is cheap enough."""
        least = {part: ExpectedCost(part, self.price).cheapest() for part in frames(self.space)}
        check_budget(self.budget, min(least.values()), self.price.unit)
        fits = tuple(part for part, cost in least.items() if cost <= self.budget)
        object.__setattr__(self, "frames", fits)

    def affordable(self, architecture: Architecture) -> bool:
        """Whether an architecture is within the budget."""
        return self.price.whole(architecture) <= self.budget


class ArchitectureSearcher(ABC):
    """A way to look for architectures."""

    name = ""
    """In logs and on the command line."""

    @abstractmethod
    def search(self, problem: SearchProblem) -> list[RankedArchitecture]:
        """Everything that was judged, best first; of equal scores the cheaper one.

        The same problem gives the same, also when it was interrupted and its book was kept.
        """

    @property
    def identity(self) -> str:
        """All settings that the way of the search depends on, in words."""
        return repr(self)

    def open_book(self, problem: SearchProblem) -> ScoreBook:
        """The scores so far of this searcher on a problem."""
        identity = {
            "searcher": self.name,
            "settings": self.identity,
            "space": problem.space.name,
            "budget": problem.budget,
            "unit": problem.price.unit,
            "seed": problem.seed,
            "objective": problem.identity,
        }
        first = not (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0)
        return ScoreBook(problem.book, identity, writes=first)

    def judge(self, problem: SearchProblem, book: ScoreBook, architecture: Architecture) -> float:
        """The objective's score, from the book where it is there; an architecture over the budget is refused."""
        if not problem.affordable(architecture):
            raise UsageError(f"search: {architecture.id} is over the budget of {problem.budget:g}.")
        score = book.find(architecture)
        if score is None:
            score = float(problem.objective(architecture))
            book.add(architecture, score, problem.price.whole(architecture))
            if problem.on_score is not None:
                problem.on_score(RankedArchitecture(architecture, score, problem.price.whole(architecture)))
        return score

    def ranked(self, problem: SearchProblem, judged: dict[Architecture, float]) -> list[RankedArchitecture]:
        """Judged architectures, best first."""
        found = [RankedArchitecture(one, score, problem.price.whole(one)) for one, score in judged.items()]
        return sorted(found, key=lambda one: (-one.score, one.cost, one.architecture.id))
