# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Milliseconds of one stage after the other: what `results.jsonl` and `effsam profile` tell."""

from __future__ import annotations

import time

__all__ = ["StageClock"]


class StageClock:
    """A stop watch with a name for each lap; `ms` holds the laps [ms]."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap, or the start, was this stage's."""
        now = time.perf_counter()
        self.ms[stage] = self.ms.get(stage, 0.0) + (now - self._last) * 1000
        self._last = now
