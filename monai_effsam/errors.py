# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The exceptions of the package; each is also a built-in, so callers who know only Python can catch them.

    EffsamError
    ├── UsageError (ValueError)          the call itself is wrong: exit status 2
    │   └── UnknownNameError             a name that is not in a table
    ├── DataError (ValueError)           a file cannot be read, written or understood
    ├── ShapeError (ValueError)          a tensor of the wrong shape at a public door
    ├── SpecError (ValueError)           an ImageSpec that contradicts itself or its network
    ├── WeightsError (ValueError)        weights that do not fit, or are not what they should be
    └── MissingExtraError (ImportError)  an optional dependency is not installed

Messages follow one form: `<where>: <what> is <found>, expected <expected>. <what to do>.`
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "DataError",
    "EffsamError",
    "MissingExtraError",
    "ShapeError",
    "SpecError",
    "UnknownNameError",
    "UsageError",
    "WeightsError",
]


class EffsamError(Exception):
    """Root of everything that this package raises on purpose; `str()` is one line for a user."""


class UsageError(EffsamError, ValueError):
    """The request itself is wrong: a box outside the image, an option that contradicts another."""


class UnknownNameError(UsageError):
    """A name that is not in its table; the message lists the table and proposes the nearest name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        super().__init__(f"{kind} '{name}' is unknown, expected one of {', '.join(names)}.{hint}")


class DataError(EffsamError, ValueError):
    """A file or folder that cannot be read, written or understood."""


class ShapeError(EffsamError, ValueError):
    """A tensor whose shape a public function cannot use."""


class SpecError(EffsamError, ValueError):
    """An `ImageSpec` with impossible values, or one that does not belong to the network."""


class WeightsError(EffsamError, ValueError):
    """Weights that do not fit the network, fail their checksum or need code to load."""


class MissingExtraError(EffsamError, ImportError):
    """An optional dependency is missing; the message holds the command that installs it."""

    def __init__(self, package: str, extra: str | None = None) -> None:
        command = f"pip install 'monai-effsam[{extra}]'" if extra else f"pip install {package}"
        super().__init__(f"package '{package}' is not installed. Install it with: {command}")
