# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Files that come with requests, kept in the server's own folder under names of its own."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import UploadFile

from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.names import suffix_of

__all__ = ["kept_upload", "take_upload"]


def take_upload(upload: UploadFile, folder: Path, suffixes: tuple[str, ...]) -> Path:
    """Copy an upload into a folder; only the suffix of its own name is kept.

    Raises:
        Refusal: 400, it is empty or its suffix is not allowed.
    """
    path = folder / f"{uuid.uuid4().hex}{suffix_of(upload.filename, suffixes)}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        shutil.copyfileobj(upload.file, file)
        size = file.tell()
    if size == 0:
        path.unlink()
        raise Refusal(400, "file: is empty.")
    return path


@contextmanager
def kept_upload(upload: UploadFile | None, folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path | None]:
    """`take_upload` for as long as it is needed; None for no upload."""
    if upload is None:
        yield None
        return
    path = take_upload(upload, folder, suffixes)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
