# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Rounds of labelling by an oracle: some images, a training, a measurement, and again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_effsam.data.sets import Case

__all__ = [
    "RoundPlan",
    "RoundRow",
    "SimulatedApp",
    "append_rows",
    "clicks_to_mend",
    "draw_cases",
    "read_rows",
    "run_rounds",
]

_PIECE = 0.005  # share of the picture that a person would not leave wrong
MOST_CLICKS = 10


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """What is simulated.

    Args:
        start: images labelled before the first training, chosen at random, the same for every strategy.
        step: images more each round.
        rounds: trainings.
    """

    start: int = 20
    step: int = 20
    rounds: int = 8


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One measurement.

    Args:
        set_name: of the data.
        strategy: that chose.
        seed: of the run.
        round: 0 is before anything was labelled.
        labels: given so far.
        clicks: that mending the model's own masks of these images would have taken.
        dice: mean over the test images, 0..1.
        seconds: spent on this round.
    """

    set_name: str
    strategy: str
    seed: int
    round: int
    labels: int
    clicks: int
    dice: float
    seconds: float


class SimulatedApp(Protocol):
    """What a simulation asks of an app, in this process or behind HTTP."""

    def choose(self, strategy: str, count: int, round_: int) -> list[str]:
        """Images to label next; in round 0 at random, whatever the strategy."""

    def label(self, names: Sequence[str]) -> int:
        """Let the oracle label images; the clicks that mending the model's masks would have taken."""

    def train(self) -> None:
        """Learn from all labels given so far."""

    def dice(self) -> float:
        """Mean Dice on the test images, by the model in use."""


def run_rounds(
    app: SimulatedApp,
    plan: RoundPlan,
    set_name: str,
    strategy: str,
    seed: int,
    clock: Callable[[], float],
) -> Iterable[RoundRow]:
    """Label, train and measure, round after round; a row after each, the first before any label.

    Args:
        app: fresh.
        plan: how much.
        set_name: for the rows.
        strategy: that chooses from the second round on.
        seed: for the rows.
        clock: time [s].
    """
    labels = clicks = 0
    last = clock()
    for number in range(plan.rounds + 1):
        if number:
            names = app.choose(strategy, plan.start if number == 1 else plan.step, number - 1)
            if not names:
                return
            clicks += app.label(names)
            labels += len(names)
            app.train()
        dice, now = app.dice(), clock()
        yield RoundRow(set_name, strategy, seed, number, labels, clicks, round(dice, 5), round(now - last, 1))
        last = now


def draw_cases(cases: Sequence[Case], pool: int, test: int, seed: int = 0) -> tuple[list[Case], list[Case]]:
    """Some cases of the split `train`, which may be labelled, and some of the others, which are measured on.

    Args:
        cases: of a set.
        pool: of the former, so many, or all.
        test: of the latter, so many, or all.
        seed: of the draw.
    """
    random = np.random.RandomState(seed)
    drawn = []
    for part, count in ((True, pool), (False, test)):
        own = [case for case in cases if (case.split == "train") == part]
        drawn.append([own[i] for i in sorted(random.permutation(len(own))[:count])])
    return drawn[0], drawn[1]


def clicks_to_mend(mask: NDArray[np.bool_], label: NDArray[np.bool_]) -> int:
    """Clicks that a person needs, roughly: one a wrong piece of half a percent of the picture, and one to accept.

    Args:
        mask: the model's, (H, W).
        label: the person's, (H, W).

    Returns:
        1..10.
    """
    wrong = 0
    for part in (mask & ~label, label & ~mask):
        named, count = ndimage.label(part)
        sizes = ndimage.sum_labels(part, named, range(1, count + 1)) if count else []
        wrong += int(np.sum(np.asarray(sizes) >= _PIECE * part.size))
    return min(MOST_CLICKS, 1 + wrong)


def read_rows(path: Path) -> list[RoundRow]:
    """Rows of a JSON lines file; none where it is missing."""
    if not path.is_file():
        return []
    return [RoundRow(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]


def append_rows(path: Path, rows: Sequence[RoundRow]) -> None:
    """Add the rows of a whole run to a JSON lines file, in one write, so that several processes may share it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(asdict(row)) + "\n" for row in rows))
