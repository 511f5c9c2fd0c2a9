# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Files that survive a kill or a power cut: written beside, synced, renamed, the folder synced.

`data.io.atomic_path` shows a file whole or not at all; this adds that what was reported as stored stays stored.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from monai_effsam.errors import DataError

__all__ = ["PART", "beside", "copy_durably", "move_durably", "sync_folder", "write_durably"]

PART = ".part-"
"""How names of unfinished files begin; after a kill they may be removed by whoever holds the folder's lock."""


def beside(path: Path) -> Path:
    """A new hidden name in the folder of `path`, with its ending; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{PART}{secrets.token_hex(6)}{path.suffix[:16]}")


def write_durably(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, on the disk when this returns.

    Raises:
        DataError: the system refuses to write.
    """
    part = path
    try:
        part = beside(path)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move_durably(part, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        if part is not path:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def copy_durably(source: Path, part: Path) -> None:
    """Copy a file to a name of `beside`, on the disk when this returns.

    Raises:
        DataError: the system refuses to read or write.
    """
    try:
        with source.open("rb") as read, part.open("wb") as write:
            shutil.copyfileobj(read, write, 1 << 20)
            write.flush()
            os.fsync(write.fileno())
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise _refused(part, error) from error


def move_durably(part: Path, path: Path) -> None:
    """Rename a finished file or folder into place; of a file that was there nothing is left."""
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk, where the system can be asked for it."""
    with suppress(OSError):  # Windows opens no folders; some network mounts sync none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _refused(path: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    return DataError(f"{path}: cannot be written: {reason}. Check space and permissions of the folder.")
