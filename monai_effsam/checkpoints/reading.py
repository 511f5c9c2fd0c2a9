# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Weights out of a file without running any code that it may hold, checked against their sha256."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from monai_effsam.errors import UsageError, WeightsError

__all__ = ["md5_of", "read_plain", "sha256_of"]

_SHOWN = 12  # digits of a checksum in a message


def read_plain(file: Path, *checksums: str | None) -> tuple[Any, str]:
    """What a file of `torch.save` holds, and the file's sha256; only tensors, numbers, texts, lists and dictionaries.

    Args:
        file: to be read.
        checksums: each what its sha256 must be, 64 hexadecimal digits; None for anything.

    Raises:
        WeightsError: missing, damaged, wrong checksum, or a pickle that wants to run code.
        UsageError: one of `checksums` is none.
    """
    wanted = [checksum for checksum in checksums if checksum]
    for checksum in wanted:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", checksum):
            raise UsageError(
                f"sha256 is '{checksum}', expected 64 hexadecimal digits. Copy the whole checksum."
            )
    try:
        found = sha256_of(file)
    except OSError as error:
        raise WeightsError(
            f"{file}: cannot be read ({error.strerror}). Give a file of weights, a run or a bundle."
        ) from error
    for checksum in wanted:
        if found != checksum.lower():
            raise WeightsError(
                f"{file}: sha256 is {found[:_SHOWN]}..., expected {checksum[:_SHOWN].lower()}...; the file is damaged "
                "or was exchanged. Restore it from where the model came from."
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that are refused below
            return torch.load(file, map_location="cpu", weights_only=True), found
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{file}: is not a plain state dict and was refused, since it could run code. "
            "Restore it from where it came from."
        ) from error
    except Exception as error:  # an unpickler that is fed with noise fails in any way
        raise WeightsError(
            f"{file}: is damaged or not a PyTorch file. Restore it from where it came from."
        ) from error


def sha256_of(file: Path) -> str:
    """The sha256 of a file's content, 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def md5_of(file: Path) -> str:
    """The MD5 of a file's content, 32 hexadecimal digits: it names published files, it does not protect them."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
