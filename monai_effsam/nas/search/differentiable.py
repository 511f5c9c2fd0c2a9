# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The differentiable searcher: probes for the frames, supernets for the best, the likeliest networks judged."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_effsam.nas.search.discrete import affordable_sample
from monai_effsam.nas.search.schedule import DifferentiableSettings
from monai_effsam.nas.search.score_book import ScoreBook
from monai_effsam.nas.search.searcher import ArchitectureSearcher, RankedArchitecture, SearchProblem
from monai_effsam.nas.search.supernet_training import SearchBatches, SupernetTraining, collapse_signs
from monai_effsam.nas.space.search_space import SearchSpace
from monai_effsam.nas.supernet import ExpectedCost, SearchSupernet, budgeted_architectures
from monai_effsam.networks.encoders.architecture import Architecture

__all__ = ["DifferentiableSearcher", "SupernetMaterial", "frame_name"]

log = logging.getLogger(__name__)


class SupernetMaterial(NamedTuple):
    """What a supernet of a frame learns from.

    Attributes:
        weights: batches to train weights on.
        choices: batches of other patients or sequences, to choose on.
        loss: (embedding, batch) -> mean over the batch's images.
    """

    weights: SearchBatches
    choices: SearchBatches
    loss: Callable[[Tensor, Any], Tensor]


def frame_name(space: SearchSpace) -> str:
    """A frame in words that may be a folder's name, such as `stem8-stride16-size256-decoder256x1x1024`."""
    decoder = f"{space.decoder_widths[0]}x{space.decoder_depths[0]}x{space.mlp_dims[0]}"
    return f"stem{space.stems[0]}-stride{space.strides[0]}-size{space.sizes[0]}-decoder{decoder}"


@dataclass(frozen=True)
class DifferentiableSearcher(ArchitectureSearcher):
    """Bi-level search of the relaxed choices within a few frames; see `SupernetTraining`.

    Where the space has more frames than `outer`, the objective judges `probes` random networks of each that
    spend the budget, and the frames of the best ones get a supernet. The likeliest `top` networks of each supernet that
    the budget allows are then judged by the objective.

    Args:
        material: frame -> what its supernet learns from.
        settings: of the supernets.
        folder: for a folder a frame; None keeps nothing.
        top: networks of each supernet that are judged.
        outer: supernets to train.
        probes: networks a frame.
        device: to train on.
        on_step: told of the row of each step.
        begin: does something to each fresh supernet, such as to let it inherit weights.
    """

    material: Callable[[SearchSpace], SupernetMaterial]
    settings: DifferentiableSettings = field(default_factory=DifferentiableSettings)
    folder: Path | None = None
    top: int = 4
    outer: int = 1
    probes: int = 1
    device: torch.device | str = "cpu"
    on_step: Callable[[dict[str, float]], object] | None = None
    begin: Callable[[SearchSupernet], object] | None = None
    name = "differentiable"

    @property
    def identity(self) -> str:
        """See `ArchitectureSearcher`."""
        return repr((self.settings, self.top, self.outer, self.probes))

    def search(self, problem: SearchProblem) -> list[RankedArchitecture]:
        """See `ArchitectureSearcher`; with a folder it goes on from the last whole epoch."""
        book, judged = self.open_book(problem), dict[Architecture, float]()
        for frame in self._chosen_frames(problem, book):
            supernet = self._trained(problem, frame)
            for sign in collapse_signs(supernet):
                log.warning("%s: %s", frame_name(frame), sign)
            cost = ExpectedCost(frame, problem.price)
            for one in budgeted_architectures(supernet, cost, problem.budget, self.top):
                judged[one] = self.judge(problem, book, one)
        return self.ranked(problem, judged)

    def _chosen_frames(self, problem: SearchProblem, book: ScoreBook) -> list[SearchSpace]:
        if len(problem.frames) <= self.outer:
            return list(problem.frames)
        scores = []
        for frame in problem.frames:
            part, rng = replace(problem, space=frame), random.Random(problem.seed)
            probes = [affordable_sample(part, rng, 0.9) for _ in range(self.probes)]
            scores.append(max(self.judge(problem, book, one) for one in probes))
            log.info("frame %s: %.4f", frame_name(frame), scores[-1])
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return [problem.frames[i] for i in order[: self.outer]]

    def _trained(self, problem: SearchProblem, frame: SearchSpace) -> SearchSupernet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(problem.seed)
            supernet = SearchSupernet(frame, problem.seed)
            if self.begin is not None:
                self.begin(supernet)
        material = self.material(frame)
        training = SupernetTraining(
            supernet,
            ExpectedCost(frame, problem.price),
            problem.budget,
            material.weights,
            material.choices,
            material.loss,
            self.settings,
            folder=None if self.folder is None else self.folder / frame_name(frame),
            device=self.device,
            on_step=self.on_step,
        )
        training.run(resume=self.folder is not None)
        return supernet
