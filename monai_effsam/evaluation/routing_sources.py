# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures of sources that no training set is from, read from clones of public repositories.

A clone lies in `FOLDER/owner+name`, as `git clone --depth 1 https://github.com/owner/name FOLDER/owner+name` puts it.
"""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_effsam.data.io import read_image
from monai_effsam.data.routing.pictures import ModalityPicture, kept_size
from monai_effsam.errors import DataError
from monai_effsam.evaluation.routing_source_table import SOURCES, RoutingSource

__all__ = ["SourcePictures", "clone_command", "evenly", "read_sources"]

log = logging.getLogger(__name__)

MOST = 50
"""Pictures of a source that are looked at, so that no large one outweighs the others."""


@dataclass(frozen=True, slots=True)
class SourcePictures:
    """What was read of one source.

    Args:
        source: row of the table.
        pictures: at most as many as were asked for, evenly spread over the files in the order of their paths.
        broken: paths that could not be read.
        commit: of the clone; empty where git does not tell.
    """

    source: RoutingSource
    pictures: tuple[ModalityPicture, ...]
    broken: tuple[str, ...]
    commit: str


def clone_command(source: RoutingSource, folder: Path) -> str:
    """The command that brings a source."""
    return f"git clone --depth 1 {source.address} {folder / source.folder}"


def evenly(count: int, most: int) -> list[int]:
    """At most `most` places of `count`, each in the middle of its share."""
    return [(2 * i + 1) * count // (2 * most) for i in range(most)] if count > most else list(range(count))


def read_sources(
    folder: Path, sources: Sequence[RoutingSource] = SOURCES, *, most: int = MOST
) -> list[SourcePictures]:
    """The pictures of all sources that are cloned; the others are warned of, a line each, and passed over.

    Args:
        folder: of the clones.
        sources: rows of the table.
        most: pictures of one source.

    Raises:
        DataError: no source is there.
    """
    found = []
    for source in sources:
        clone = folder / source.folder
        if clone.is_dir():
            found.append(_read(source, clone, most))
        else:
            log.warning("%s: not here. %s", source.name, clone_command(source, folder))
    if not any(each.pictures for each in found):
        raise DataError(
            f"{folder}: picture of a source is missing, expected one clone at least. "
            f"{clone_command(sources[0], folder)}"
        )
    return found


def _read(source: RoutingSource, clone: Path, most: int) -> SourcePictures:
    commit = _commit(clone)
    if commit not in ("", source.commit):
        log.warning(
            "%s: commit is %s, expected %s. git -C %s fetch --depth 1 origin %s && git -C %s checkout FETCH_HEAD",
            source.name, commit[:12], source.commit[:12], clone, source.commit, clone,
        )  # fmt: skip
    paths = sorted(path for path in _paths(clone) if re.fullmatch(source.pattern, path))
    if len(paths) != source.count:
        log.warning("%s: pictures are %d, expected %d.", source.name, len(paths), source.count)
    pictures, broken = [], []
    for path in [paths[place] for place in evenly(len(paths), most)]:
        try:
            image = read_image(clone / path, modality=source.modality or None)
        except DataError as error:
            log.warning("%s: passed over. %s", source.name, error)
            broken.append(path)
            continue
        middle = image.rgb(len(image.slices) // 2)
        pictures.append(ModalityPicture(kept_size(middle), source.modality, source.name, path))
    return SourcePictures(source, tuple(pictures), tuple(broken), commit)


def _paths(clone: Path) -> Iterator[str]:
    """Of all files of a work tree, relative to it, with forward slashes."""
    for path in clone.rglob("*"):
        relative = path.relative_to(clone)
        if relative.parts[0] != ".git" and path.is_file():
            yield relative.as_posix()


def _commit(clone: Path) -> str:
    if not (clone / ".git").exists():
        return ""
    try:
        told = subprocess.run(
            ["git", "-C", str(clone), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.strip()
