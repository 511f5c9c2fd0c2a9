# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Readers' warnings kept from the user's screen: what matters becomes an error or a note."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

_LOCK = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore Python warnings inside; one thread at a time, since the filters belong to the process."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
