# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What an evaluation is asked for besides model and data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monai_effsam.errors import UsageError
from monai_effsam.evaluation.robot import RobotUser

__all__ = ["EvaluationSettings"]


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """What an evaluation is asked for besides model and data.

    Args:
        split: that is evaluated; what is trivial is learnt from the split `train`.
        seed: of the bootstrap.
        tolerance: of surface Dice, in mm, or in px where the spacing is unknown.
        robot: a simulated user who prompts; None evaluates without prompts.
        compare: folder or `images.csv` of another evaluation of the same files, or None.
        worst: how many of a set's worst cases the report shows.

    Raises:
        UsageError: numbers out of range.
    """

    split: str = "val"
    seed: int = 0
    tolerance: float = 2.0
    robot: RobotUser | None = None
    compare: Path | None = None
    worst: int = 6

    def __post_init__(self) -> None:
        """Refuse what makes no evaluation."""
        if not 0 < self.tolerance < float("inf"):
            raise UsageError(f"evaluate: tolerance is {self.tolerance:g}, expected a positive number.")
        if self.worst < 0:
            raise UsageError(f"evaluate: worst is {self.worst}, expected 0 or more cases a set.")
