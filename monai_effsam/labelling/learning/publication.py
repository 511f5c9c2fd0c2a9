# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Models that were learnt here: whole folders, and one small file that says which of them is in use.

    models/v0003/model.pt model.json ...    written beside, synced, renamed
    models/current.json                     {"version": "v0003"}, replaced as one

Whatever is killed in between, `current` names a whole model, or none was ever published.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from monai_effsam.errors import DataError, UsageError
from monai_effsam.labelling.durable import PART, move_durably, sync_folder, write_durably

__all__ = ["current", "publish", "use_version", "versions"]

_POINTER = "current.json"
_VERSION = re.compile(r"v\d{4,}")
KEPT = 10
"""Versions that stay, the newest ones and the one in use."""


def current(folder: Path) -> Path | None:
    """`model.pt` of the version in use, None where nothing was published; costs two looks at the disk.

    Args:
        folder: of the versions.

    Raises:
        DataError: the file that names the version is damaged, or the version is gone.
    """
    pointer = folder / _POINTER
    try:
        version = str(json.loads(pointer.read_bytes())["version"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{pointer}: is damaged ({error}), expected the name of a version. Remove it to go back to the first model."
        ) from error
    file = folder / version / "model.pt"
    if not _VERSION.fullmatch(version) or not file.is_file():
        raise DataError(f"{pointer}: names {version[:60]!r}, expected one of {versions(folder)}. Mend it.")
    return file


def versions(folder: Path) -> list[str]:
    """Names of all whole versions, oldest first."""
    if not folder.is_dir():
        return []
    names = [p.name for p in folder.iterdir() if _VERSION.fullmatch(p.name) and (p / "model.pt").is_file()]
    return sorted(names, key=lambda name: int(name[1:]))


def publish(folder: Path, write: Callable[[Path], object], *, kept: int = KEPT) -> Path:
    """Make the next version and put it in use.

    Args:
        folder: of the versions, made where it is missing.
        write: fills the empty folder that it is given; `model.pt` must be in it afterwards.
        kept: versions that stay.

    Returns:
        `model.pt` of the new version.

    Raises:
        DataError: the system refuses to write, or `write` left no `model.pt`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for remains in folder.glob(f"{PART}*"):  # of a publication that was killed
            shutil.rmtree(remains, ignore_errors=True) if remains.is_dir() else remains.unlink(
                missing_ok=True
            )
        part = folder / f"{PART}{secrets.token_hex(6)}"
        try:
            part.mkdir()
            write(part)
            _sync_files(part)
            numbers = [int(name[1:]) for name in versions(folder)]
            target = folder / f"v{max(numbers, default=0) + 1:04d}"
            shutil.rmtree(target, ignore_errors=True)  # one without a model
            move_durably(part, target)
        except OSError as error:
            raise DataError(
                f"{folder}: model cannot be published: {error.strerror or error}. Check space and permissions."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        _point(folder, target.name)
        for name in versions(folder)[:-kept]:
            if name != target.name:
                shutil.rmtree(folder / name, ignore_errors=True)
    return target / "model.pt"


def use_version(folder: Path, version: str | None) -> None:
    """Go back to an older version, or with None to the model that the app started from.

    Raises:
        UsageError: there is no such version.
    """
    if version is not None and version not in versions(folder):
        raise UsageError(
            f"version '{version[:60]}' is unknown, expected one of {', '.join(versions(folder))}. Choose one."
        )
    with FileLock(folder / ".lock"):
        if version is None:
            (folder / _POINTER).unlink(missing_ok=True)
            sync_folder(folder)
        else:
            _point(folder, version)


def _point(folder: Path, version: str) -> None:
    write_durably(folder / _POINTER, json.dumps({"version": version}).encode())


def _sync_files(folder: Path) -> None:
    if not (folder / "model.pt").is_file():
        raise DataError(f"{folder}: holds no model.pt, expected what is to be published. Write it there.")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
