# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Names that come with requests: which may be used at all, before anything is looked up or written."""

from __future__ import annotations

import re
import uuid
from pathlib import PurePosixPath

from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.store.state import FINAL, ORIGINAL

__all__ = [
    "IMAGE_SUFFIXES",
    "LABEL_SUFFIXES",
    "TAGS",
    "check_known",
    "check_new_id",
    "check_session",
    "check_tag",
    "suffix_of",
]

TAGS = (FINAL, ORIGINAL)
"""Of labels, that a request may name."""

IMAGE_SUFFIXES = (
    ".nii.gz", ".nii", ".nrrd", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm",
)  # fmt: skip
LABEL_SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".png", ".bin")

_NEW_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NOT_IN_KNOWN = re.compile(r"[/\\\x00-\x1f]|^\.|^\s*$")


def check_new_id(name: str) -> str:
    """The id that an upload asks for, if it can be a file name everywhere and a path nowhere.

    Raises:
        Refusal: 400 otherwise.
    """
    if not _NEW_ID.fullmatch(name) or ".." in name:
        raise Refusal(
            400,
            "image: the id may hold letters, digits, '.', '_' and '-', and begins with none of '.-'. Rename it.",
        )
    return name


def check_known(name: str, kind: str = "image") -> str:
    """An id that is about to be looked up: never a path, whatever the store would make of it.

    Raises:
        Refusal: 404.
    """
    if len(name) > 255 or _NOT_IN_KNOWN.search(name) or name == "..":
        raise Refusal(404, f"{kind}: there is none of this id.")
    return name


def check_tag(tag: str) -> str:
    """A tag of labels.

    Raises:
        Refusal: 400, it is none of `TAGS`.
    """
    if tag not in TAGS:
        raise Refusal(400, f"tag: expected one of {', '.join(TAGS)}.")
    return tag


def check_session(name: str) -> str:
    """The id of a session, as this server makes them.

    Raises:
        Refusal: 404, it is no UUID in its usual form.
    """
    try:
        whole = str(uuid.UUID(name)) == name
    except ValueError:
        whole = False
    if not whole:
        raise Refusal(404, "session: there is none of this id.")
    return name


def suffix_of(filename: str | None, allowed: tuple[str, ...], default: str = ".nii.gz") -> str:
    """The suffix of an upload's name, one of those allowed; the rest of the name is not used.

    Raises:
        Refusal: 400, another suffix.
    """
    name = PurePosixPath((filename or "").replace("\\", "/")).name.lower()
    if not name:
        return default
    for suffix in sorted(allowed, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    raise Refusal(400, f"file: its name must end in one of {', '.join(allowed)}.")
