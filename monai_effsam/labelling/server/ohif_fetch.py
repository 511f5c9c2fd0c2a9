# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The prebuilt OHIF from the npm registry into a folder: fixed version, checked by its hash, never at start."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from monai_effsam.errors import DataError, UsageError

__all__ = ["OHIF_PACKAGE", "OHIF_SHA512", "fetch_ohif", "unpack_ohif"]

OHIF_PACKAGE = "@ohif/app@3.12.10"
"""The version that our extension is tested with."""

OHIF_SHA512 = "0kuF66Mq9c9dMD++bUsTjMrJpXJwaZhz9B4uS244DawAjSkTwIYFU93pxPuRUQixaRi7QAHlF3Fe1qudBlZrmA=="
"""Of its file in the registry, base64, as npm's lock files have it."""

_LIMIT = 1 << 30
_SECONDS = 1800


def fetch_ohif(folder: Path) -> Path:
    """Fetch the viewer with `npm pack` and unpack it; needs the network, once.

    Args:
        folder: where the viewer goes; made where it is missing. What it holds already is left as it is.

    Returns:
        The folder to name with `--ohif`.

    Raises:
        UsageError: npm is missing, or the folder holds something else.
        DataError: npm fails, or the file is not the one expected.
    """
    _check_free(folder)
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(
            "--fetch-ohif: npm is missing, expected on PATH. Install Node.js, or run "
            f"`npm pack {OHIF_PACKAGE}` elsewhere, unpack it and name the folder with --ohif."
        )
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", OHIF_PACKAGE, "--ignore-scripts", "--pack-destination", temporary]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise DataError(
                f"npm pack {OHIF_PACKAGE}: no end after {_SECONDS} s. Check the network."
            ) from error
        found = sorted(Path(temporary).glob("*.tgz"))
        if done.returncode or not found:
            lines = [line for line in done.stderr.splitlines() if "npm error" in line]
            raise DataError(
                f"npm pack {OHIF_PACKAGE}: failed ({lines[0] if lines else 'no file'}). "
                "Check the network and npm's registry."
            )
        return unpack_ohif(found[0], folder)


def unpack_ohif(archive: Path, folder: Path, sha512: str = OHIF_SHA512) -> Path:
    """Unpack the viewer of an npm package, whole or not at all.

    Args:
        archive: the .tgz of the registry.
        folder: where the viewer goes.
        sha512: what the archive must hash to, base64.

    Returns:
        The folder.

    Raises:
        UsageError: the folder holds something.
        DataError: the archive is another one, or damaged.
    """
    _check_free(folder)
    with archive.open("rb") as file:
        digest = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if digest != sha512:
        raise DataError(
            f"{archive.name}: sha512 is {digest}, expected {sha512}. Fetch it again; do not use this one."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        try:
            with tarfile.open(archive) as tar:
                wanted = [m for m in tar.getmembers() if m.isfile() and m.name.startswith("package/dist/")]
                if sum(member.size for member in wanted) > _LIMIT:
                    raise DataError(f"{archive.name}: unpacks to over {_LIMIT >> 20} MB, expected less.")
                tar.extractall(temporary, members=wanted, filter="data")
        except tarfile.TarError as error:
            raise DataError(f"{archive.name}: cannot be unpacked ({error}). Fetch it again.") from error
        dist = Path(temporary) / "package" / "dist"
        if not (dist / "index.html").is_file():
            raise DataError(f"{archive.name}: has no package/dist/index.html, expected a prebuilt viewer.")
        dist.replace(folder)  # takes the place of an empty folder too
    return folder


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"--fetch-ohif: {folder} is there already, expected a new or empty folder. Name another."
        )
