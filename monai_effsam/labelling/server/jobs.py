# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Long work, one at a time: training and scoring, in a thread of this process.

The stock server starts a second process for each, builds the whole app again there and writes the request on its
command line, where every user of the machine can read it.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_effsam.errors import EffsamError
from monai_effsam.labelling.server.errors import Refusal, one_line

__all__ = ["BackgroundJob", "Jobs"]

logger = logging.getLogger(__name__)

_TIME = "%Y-%m-%d %H:%M:%S"
_LINES = 20
_QUEUED = 8


@dataclass(slots=True)
class BackgroundJob:
    """One piece of work; its fields are those that the viewers read.

    Args:
        request: what was asked for.
        work: does it.
        cancel: asks `work` to end soon.
    """

    request: Mapping[str, Any]
    work: Callable[[], Any]
    cancel: Callable[[], None]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "SUBMITTED"
    start_ts: str = field(default_factory=lambda: time.strftime(_TIME))
    end_ts: str | None = None
    details: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    stopped: bool = False

    def to_json(self) -> dict[str, Any]:
        """As the viewers read it."""
        ended = {"end_ts": self.end_ts} if self.end_ts else {}
        return {
            "id": self.id,
            "status": self.status,
            "request": dict(self.request),
            "start_ts": self.start_ts,
            **ended,
            "details": list(self.details),
        }


class _Lines(logging.Handler):
    """Keeps what the thread of a job logs."""

    def __init__(self, job: BackgroundJob) -> None:
        super().__init__(logging.INFO)
        self._job, self._thread = job, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._job.details.append(one_line(record.getMessage()))


class Jobs:
    """A queue of jobs of one kind.

    Args:
        kind: "train" or "scoring"; names the thread.
        keep: finished jobs remembered.
    """

    def __init__(self, kind: str, keep: int = 20) -> None:
        self._kind = kind
        self._lock = threading.Lock()
        self._waiting: deque[BackgroundJob] = deque()
        self._running: BackgroundJob | None = None
        self._all: deque[BackgroundJob] = deque(maxlen=keep)

    def submit(self, job: BackgroundJob, *, enqueue: bool = False) -> BackgroundJob:
        """Start a job, or let it wait for the one that runs.

        Raises:
            Refusal: 429, one runs and it may not wait, or too many wait.
        """
        with self._lock:
            if self._running is not None and (not enqueue or len(self._waiting) >= _QUEUED):
                raise Refusal(429, f"{self._kind}: one is running already. Stop it or wait.")
            self._all.append(job)
            self._waiting.append(job)
            if self._running is None:
                self._start_next()
        return job

    def running(self) -> BackgroundJob | None:
        """The job that runs now."""
        return self._running

    def last(self) -> BackgroundJob | None:
        """The newest job."""
        with self._lock:
            return self._all[-1] if self._all else None

    def all(self) -> list[BackgroundJob]:
        """Every job remembered, oldest first."""
        with self._lock:
            return list(self._all)

    def stop(self) -> None:
        """Drop what waits and ask what runs to end."""
        with self._lock:
            for waiting in self._waiting:
                self._end(waiting, "ERROR", "stopped before it began")
            self._waiting.clear()
            job = self._running
            if job is not None:
                job.stopped = True
        if job is not None:
            job.cancel()

    def _start_next(self) -> None:
        """With the lock held."""
        self._running = self._waiting.popleft() if self._waiting else None
        if self._running is not None:
            threading.Thread(target=self._run, args=(self._running,), name=self._kind, daemon=True).start()

    def _run(self, job: BackgroundJob) -> None:
        handler = _Lines(job)
        logging.getLogger().addHandler(handler)
        job.status = "RUNNING"
        try:
            job.work()
            self._end(job, "ERROR" if job.stopped else "DONE", "stopped" if job.stopped else "")
        except EffsamError as error:
            self._end(job, "ERROR", str(error))
        except Exception as error:
            logger.exception("%s failed", self._kind)
            self._end(job, "ERROR", f"{self._kind} failed ({type(error).__name__}); the log tells more")
        finally:
            logging.getLogger().removeHandler(handler)
            with self._lock:
                self._start_next()

    def _end(self, job: BackgroundJob, status: str, line: str) -> None:
        if line:
            job.details.append(one_line(line))
        job.status, job.end_ts = status, time.strftime(_TIME)
