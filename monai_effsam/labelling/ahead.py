# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Work that nobody waits for yet: the next sample is encoded while the user still looks at this one."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from monai_effsam.errors import EffsamError

__all__ = ["WorkAhead"]

logger = logging.getLogger(__name__)

_NICENESS = 15
_PAUSE = 0.05  # between two looks whether requests are done [s]


class WorkAhead:
    """One thread of low priority that takes steps while no request is at work; the newest job replaces the last.

    Args:
        busy: whether a request is at work.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        self._changed = threading.Condition()
        self._job: Callable[[], Iterable[object]] | None = None
        self._number = 0
        self._idle = True
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self, job: Callable[[], Iterable[object]]) -> None:
        """Do a job step by step; what is left of an older one is dropped."""
        with self._changed:
            if self._closed:
                return
            self._job, self._idle = job, False
            self._number += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="effsam-ahead", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is left to do; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._idle, seconds)

    def close(self) -> None:
        """End the thread after the step that it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # a thread's own priority is Linux's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            with self._changed:
                if self._job is None:
                    self._idle = True
                    self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or self._job is not None)
                if self._closed or self._job is None:
                    return
                job, number = self._job, self._number
                self._job = None
            try:
                for _ in job():
                    if not self._may_go_on(number):
                        break
            except EffsamError as error:
                logger.info("nothing is prepared: %s", error)
            except Exception:  # the next request will meet it, and tell its user
                logger.exception("preparing the next sample failed")

    def _may_go_on(self, number: int) -> bool:
        """Whether this job is still the newest, asked when no request is at work any more."""
        with self._changed:
            while self._busy() and not self._closed and number == self._number:
                self._changed.wait(_PAUSE)
            return not self._closed and number == self._number
