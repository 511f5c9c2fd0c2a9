# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Work in a process that is killed at a chosen step."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def survives(work: Callable[[], object], deadly: int, also: Sequence[tuple[Any, str]] = ()) -> bool:
    """Do something in a process that dies before its call number `deadly` that changes the disk.

    Args:
        work: what to do.
        deadly: number of the call, from 1.
        also: (owner, name) of calls that count besides fsync, replace and unlink.

    Returns:
        Whether it got through.
    """
    child = os.fork()  # a new interpreter for each of some forty deaths would take minutes
    if not child:
        try:
            count = 0

            def fatal(function):
                def call(*args, **kwargs):
                    nonlocal count
                    count += 1
                    if count == deadly:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*args, **kwargs)

                return call

            for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), *also):
                setattr(owner, name, fatal(getattr(owner, name)))
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == 0
