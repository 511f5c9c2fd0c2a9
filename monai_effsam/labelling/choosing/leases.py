# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Who labels what just now: an image that one user was given is not given to another for a while."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from monai_effsam.labelling.durable import write_durably

__all__ = ["Leases"]


class Leases:
    """Images lent to users.

    Args:
        seconds: that a lease lasts.
        file: where leases are kept, so that a restart forgets none; None for memory alone.
        clock: time [s].
    """

    def __init__(
        self, seconds: float = 1800, file: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.seconds, self.file, self._clock = seconds, file, clock
        self._lock = threading.Lock()
        self._lent: dict[str, tuple[str, float]] = {}
        if file is not None and file.is_file():
            try:
                self._lent = {
                    str(k): (str(c), float(t)) for k, (c, t) in json.loads(file.read_bytes()).items()
                }
            except (ValueError, TypeError, AttributeError):
                self._lent = {}

    def take(self, order: Iterable[str], client: str) -> str | None:
        """Lend the first image that nobody has; failing that, the one that this user has had longest.

        Args:
            order: images, the best first.
            client: who asks; without a name nobody is known again.

        Returns:
            The image, or None where others have all of them.
        """
        with self._lock:
            now = self._clock()
            self._lent = {k: held for k, held in self._lent.items() if held[1] > now}
            own: list[str] = []
            chosen = None
            for name in order:
                holder = self._lent.get(name)
                if holder is None:
                    chosen = name
                    break
                if client and holder[0] == client:
                    own.append(name)
            if chosen is None and own:
                chosen = min(own, key=lambda name: self._lent[name][1])
            if chosen is None:
                return None
            self._lent[chosen] = client, now + self.seconds
            if self.file is not None:
                write_durably(self.file, json.dumps(self._lent).encode())
            return chosen

    def lent(self) -> set[str]:
        """Images that somebody has."""
        with self._lock:
            now = self._clock()
            return {name for name, (_, until) in self._lent.items() if until > now}

    def give_back(self, name: str) -> None:
        """End a lease: the image is labelled."""
        with self._lock:
            self._lent.pop(name, None)
