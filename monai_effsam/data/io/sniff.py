# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a file is, by its first bytes; names and endings are not believed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from monai_effsam.data.io.image import Kind

__all__ = ["ENDINGS", "content_kind", "stem"]

ENDINGS: tuple[str, ...] = (
    ".nii.gz", ".nii", ".nrrd", ".nhdr", ".dcm", ".dicom", ".ima",
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif",
)  # fmt: skip
"""File endings that promise an image; they only decide what a folder run looks at and how outputs are named."""

_RASTER = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
    b"BM",
    b"GIF8",
)
_GZIP = b"\x1f\x8b"


def content_kind(path: Path) -> Kind | None:
    """What the first bytes say the file is, None for anything that is not read here or cannot be opened."""
    try:
        with path.open("rb") as file:
            head = file.read(560)
    except OSError:
        return None
    if head[128:132] == b"DICM":  # first, since a preamble may look like a TIFF
        return "dicom"
    if head.startswith(_GZIP):
        head = _unpacked_head(path)
        return "nifti" if _is_nifti(head) else None
    if head.startswith(_RASTER) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return "raster"
    if head.startswith(b"NRRD0"):
        return "nrrd"
    if _is_nifti(head):
        return "nifti"
    return "dicom" if _is_bare_dicom(head) else None


def stem(path: Path) -> str:
    """The file name without an ending of `ENDINGS`; other dots stay, DICOM files are often named by UIDs."""
    lower = path.name.lower()
    ending = next((e for e in ENDINGS if lower.endswith(e) and len(lower) > len(e)), "")
    return path.name[: len(path.name) - len(ending)]


def _unpacked_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(560)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_nifti(head: bytes) -> bool:
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _is_bare_dicom(head: bytes) -> bool:
    """A plausible first element of a DICOM file without preamble."""
    little = head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\0"
    big = head[:2] in (b"\x00\x02", b"\x00\x08") and head[2:3] == b"\0"
    return len(head) >= 8 and (little or big)
