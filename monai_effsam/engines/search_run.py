# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A whole search: a plan, a searcher, and what it leaves in a folder."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from monai_effsam.data.distilling import ViewBatch
from monai_effsam.data.io import write_bytes
from monai_effsam.engines.searching import SearchMaterial, SearchSizes
from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.nas.cost import cost_of
from monai_effsam.nas.search import (
    ArchitectureSearcher,
    DifferentiableSearcher,
    DifferentiableSettings,
    EvolutionarySearcher,
    NsgaSearcher,
    RandomSearcher,
    RankedArchitecture,
    SearchProblem,
    SupernetTraining,
    affordable_sample,
)
from monai_effsam.nas.space import SearchSpace, write_architecture
from monai_effsam.nas.supernet import ArchitecturePrice, ExpectedCost, SearchSupernet

__all__ = ["SEARCHERS", "EncoderSearch", "SearchPlan"]

SEARCHERS = ("differentiable", "random", "evolution", "nsga2")
"""Names of searchers."""


@dataclass(frozen=True)
class SearchPlan:
    """Everything that the way of a search depends on but pictures, teacher and table.

    Args:
        searcher: one of `SEARCHERS`.
        space: name of the search space.
        fixed: choices of the frame that are given, see `narrowed`.
        budget: most that a network may cost.
        unit: of the budget, `ms` or `MMAC`.
        with_decoder: whether the budget is of encoding and one box.
        epochs: of a supernet.
        top: networks of a supernet that are judged.
        outer: supernets.
        count: networks that the other searchers judge.
        sizes: how much is looked at.
        seed: of everything.

    Raises:
        UnknownNameError: no such searcher.
    """

    searcher: str = "differentiable"
    space: str = "small"
    fixed: dict[str, int] = field(default_factory=dict)
    budget: float = 15.0
    unit: str = "ms"
    with_decoder: bool = False
    epochs: int = 30
    top: int = 4
    outer: int = 1
    count: int = 20
    sizes: SearchSizes = field(default_factory=SearchSizes)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.searcher not in SEARCHERS:
            raise UnknownNameError("searcher", self.searcher, SEARCHERS)


class _Few:
    """One batch, some times over."""

    def __init__(self, batch: ViewBatch, count: int) -> None:
        self.batch, self.count, self.epoch = batch, count, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[ViewBatch]:
        return iter([self.batch] * self.count)


class EncoderSearch:
    """One search and its folder: `plan.json`, `scores.jsonl`, a folder a frame; at the end `architecture.json`,
    `ranked.json` and `search.jsonl`.

    Args:
        plan: what to do.
        space: of the plan, narrowed.
        price: of networks, in the plan's unit.
        material: that it learns from.
        out: the folder.
        device: to train on.

    Raises:
        UsageError: the budget is below the smallest network.
    """

    def __init__(
        self,
        plan: SearchPlan,
        space: SearchSpace,
        price: ArchitecturePrice,
        material: SearchMaterial,
        out: Path,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.plan, self.material, self.out, self.device = plan, material, out, device
        self.problem = SearchProblem(
            space,
            price,
            plan.budget,
            material.judge,
            plan.seed,
            book=out / "scores.jsonl",
            identity=material.identity,
        )
        self.settings = DifferentiableSettings(epochs=plan.epochs, seed=plan.seed)

    @property
    def steps(self) -> int:
        """Of all supernets together; 0 for other searchers."""
        if self.plan.searcher != "differentiable":
            return 0
        count = min(self.plan.outer, len(self.problem.frames))
        return count * self.plan.epochs * len(self.material.of_frame(self.problem.frames[0]).weights)

    @property
    def judged(self) -> int:
        """Networks that will be judged, at most."""
        plan, frames = self.plan, len(self.problem.frames)
        if plan.searcher != "differentiable":
            return plan.count
        return min(plan.outer, frames) * plan.top + (frames if frames > plan.outer else 0)

    def searcher(self, on_step: Callable[[dict[str, float]], object] | None = None) -> ArchitectureSearcher:
        """The searcher of the plan."""
        plan = self.plan
        if plan.searcher == "random":
            return RandomSearcher(plan.count)
        if plan.searcher == "evolution":
            return EvolutionarySearcher(plan.count)
        if plan.searcher == "nsga2":
            return NsgaSearcher(plan.count)
        return DifferentiableSearcher(
            self.material.of_frame,
            self.settings,
            self.out,
            plan.top,
            plan.outer,
            device=self.device,
            on_step=on_step,
            begin=self.material.begin,
        )

    def begin(self, *, resume: bool = False) -> None:
        """Leave the plan in the folder, and nothing of another search.

        Raises:
            UsageError: the folder holds another search.
        """
        file = self.out / "plan.json"
        content = json.dumps({**asdict(self.plan), "material": self.material.identity}, indent=1) + "\n"
        if resume and file.is_file() and file.read_text(encoding="utf-8") != content:
            theirs, ours = json.loads(file.read_text(encoding="utf-8")), json.loads(content)
            other = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
            raise UsageError(
                f"{file}: is of another search (other {', '.join(other)}), expected that to be continued. "
                "Give the same options, or another --out."
            )
        if not resume and self._first:
            for old in (self.out / "scores.jsonl", *self.out.glob("*/checkpoint.pt")):
                old.unlink(missing_ok=True)
        if self._first:
            write_bytes(file, content.encode())
        if dist.is_available() and dist.is_initialized():
            dist.barrier()

    def run(
        self,
        *,
        on_step: Callable[[dict[str, float]], object] | None = None,
        on_score: Callable[[RankedArchitecture], object] | None = None,
    ) -> list[RankedArchitecture]:
        """Search what is left of it; everything judged, best first, is written and returned."""
        ranked = self.searcher(on_step).search(replace(self.problem, on_score=on_score))
        if self._first:
            self._write(ranked)
        return ranked

    def rows(self) -> list[dict[str, Any]]:
        """What each step of each supernet came to, with the name of its frame."""
        return [
            {"frame": file.parent.name, **json.loads(line)}
            for file in sorted(self.out.glob("*/search.jsonl"))
            for line in file.read_text(encoding="utf-8").splitlines()
        ]

    def facts(self, ranked: list[RankedArchitecture]) -> list[dict[str, Any]]:
        """Id, score, cost, MACs and parameters of each."""
        return [
            {
                "id": one.architecture.id,
                "score": round(one.score, 6),
                "cost": round(one.cost, 4),
                "mmacs": round(cost_of(one.architecture).encoder.macs / 1e6, 2),
                "parameters": cost_of(one.architecture).encoder.parameters,
                "architecture": one.architecture.to_json(),
            }
            for one in ranked
        ]

    def estimate(self, count: int = 2) -> dict[str, float]:
        """Seconds that each part will take, reckoned from a few of its steps; nothing of it is kept.

        The teacher's share counts every view, also those that a cache has already.

        Args:
            count: steps of each part.
        """
        material, plan = self.material, self.plan
        rows = material.rows
        views = plan.sizes.views * (len(rows.weights) + len(rows.choices)) + len(material.judged_rows)
        cache, material.teacher.cache = material.teacher.cache, None
        try:
            batches = material.of_frame(self.problem.frames[0])
            seen = [next(iter(part)) for part in batches[:2]]
            started = time.perf_counter()
            batch = next(iter(batches.weights))
            found = {"teacher": views * (time.perf_counter() - started) / len(batch.image)}
        finally:
            material.teacher.cache = cache
        one = affordable_sample(self.problem, random.Random(plan.seed), 0.8)
        started = time.perf_counter()
        material.distilled(one, [batch] * count)
        found["judging"] = (time.perf_counter() - started) / count * plan.sizes.judge_steps * self.judged
        if self.steps:
            frame = self.problem.frames[0]
            weights, choices = (_Few(part, count) for part in seen)
            settings = replace(self.settings, epochs=1, warm_up=0.0)
            cost = ExpectedCost(frame, self.problem.price)
            training = SupernetTraining(
                SearchSupernet(frame),
                cost,
                plan.budget,
                weights,
                choices,
                batches.loss,
                settings,
                device=self.device,
            )
            started = time.perf_counter()
            training.run()
            each = (time.perf_counter() - started) / count
            found["supernets"] = each * self.steps
        return found

    @property
    def _first(self) -> bool:
        return not (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0)

    def _write(self, ranked: list[RankedArchitecture]) -> None:
        best = ranked[0].architecture
        rows = self.rows()
        write_bytes(self.out / "search.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
        write_bytes(self.out / "ranked.json", (json.dumps(self.facts(ranked), indent=1) + "\n").encode())
        write_architecture(best, self.out / "architecture.json")
