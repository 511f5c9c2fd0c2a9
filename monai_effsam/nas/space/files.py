# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`architecture.json`: an architecture on disk."""

from __future__ import annotations

import json
from pathlib import Path

from monai_effsam.errors import DataError, SpecError, UsageError
from monai_effsam.networks.encoders.architecture import Architecture

__all__ = ["read_architecture", "write_architecture"]


def read_architecture(file: Path) -> Architecture:
    """The architecture of a file.

    Raises:
        DataError: it cannot be read, is not JSON, or describes none; the message names the file.
    """
    try:
        return Architecture.from_json(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}). Name an architecture.json.") from error
    except (SpecError, UsageError) as error:
        raise DataError(f"{file}: {error}") from error
    except ValueError as error:
        raise DataError(f"{file}: is not JSON ({error}). Name an architecture.json.") from error


def write_architecture(architecture: Architecture, file: Path) -> None:
    """Write a file, whole or not at all."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(architecture.to_json(), indent=1) + "\n", encoding="utf-8")
    part.replace(file)
