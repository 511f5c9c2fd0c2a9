# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Inferences run in threads of their own, a few at a time, so that everything else is answered meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from monai_effsam.labelling.server.errors import Refusal

__all__ = ["InferenceQueue"]

T = TypeVar("T")


class InferenceQueue:
    """So many run, so many wait, the next is refused.

    Args:
        running: at once.
        waiting: for those.
    """

    def __init__(self, running: int, waiting: int) -> None:
        self._running, self._most = running, running + waiting
        self._inside = 0
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, run in a thread when it is its turn.

        Raises:
            Refusal: 429, too many wait already.
        """
        if self._inside >= self._most:
            raise Refusal(
                429, "inference: too many requests wait already. Try again in a moment.", {"Retry-After": "2"}
            )
        if self._limiter is None:  # it belongs to the event loop that is running now
            self._limiter = anyio.CapacityLimiter(self._running)
        self._inside += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._inside -= 1
