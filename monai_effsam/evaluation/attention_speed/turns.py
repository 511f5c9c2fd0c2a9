# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Times of several calls in turns, and what this machine can do at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

__all__ = ["MachineLimits", "limits", "times_in_turns_of"]


def times_in_turns_of(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Least time of each call [ms of CPU], after one that warms up.

    All calls take turns, and the processor's time of this process counts, so what else the machine does meets all of
    them and hardly shows.

    Args:
        calls: by name.
        rounds: turns that count, at least 1.
    """
    least = dict.fromkeys(calls, float("inf"))
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            took = (time.process_time() - start) * 1000
            least[name] = min(least[name], took) if number else least[name]
    return least


class MachineLimits(NamedTuple):
    """What a thread reaches: of arithmetic [FLOP / s], and of memory read or written [bytes / s]."""

    flops: float
    bytes: float

    def least_ms(self, flops: float, moved: float) -> float:
        """The time below which so much work cannot be done [ms]."""
        return 1000 * max(flops / self.flops, moved / self.bytes)


def limits(side: int = 1024, rounds: int = 5) -> MachineLimits:
    """Measured with a product of square matrices and a copy of 64 MiB, single precision."""
    a, b = torch.rand(side, side), torch.rand(side, side)
    large = torch.rand(1 << 24)
    target = torch.empty_like(large)
    found = times_in_turns_of({"product": lambda: a @ b, "copy": lambda: target.copy_(large)}, rounds)
    return MachineLimits(2e3 * side**3 / found["product"], 2e3 * 4 * large.numel() / found["copy"])
