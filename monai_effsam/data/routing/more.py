# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures of further sources for a router's training, with a part of their patients held out to calibrate on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from monai_effsam.data.routing.clones import RoutingSource, SourcePictures, read_sources
from monai_effsam.data.routing.pictures import ModalityPicture
from monai_effsam.data.routing.training_sources import TRAINING_SOURCES

__all__ = ["MorePictures", "more_pictures"]

MOST = 200
"""Pictures of a source."""

_LEAST_GROUPS = 10
"""A source of fewer patients or sequences is trained on as a whole."""


class MorePictures(NamedTuple):
    """Pictures of further sources.

    Args:
        train: of known modalities, to train on.
        held: of known modalities, of other patients, to calibrate on.
        foreign: of none, to train on.
    """

    train: tuple[ModalityPicture, ...]
    held: tuple[ModalityPicture, ...]
    foreign: tuple[ModalityPicture, ...]


def more_pictures(
    folder: Path | str,
    fraction: float,
    left_out: Sequence[str] = (),
    sources: Sequence[RoutingSource] = TRAINING_SOURCES,
) -> MorePictures:
    """Read the clones of the training sources; those that are missing are warned of and passed over.

    Args:
        folder: of the clones, see `clones`.
        fraction: of the groups of a source to hold out, chosen by a hash of their names.
        left_out: names of sources not to read.
        sources: rows of the table.

    Raises:
        DataError: no source is there.
    """
    wanted = [source for source in sources if source.name not in left_out]
    train: list[ModalityPicture] = []
    held: list[ModalityPicture] = []
    foreign: list[ModalityPicture] = []
    for read in read_sources(Path(folder), wanted, most=MOST):
        if not read.source.modality:
            foreign += read.pictures
            continue
        kept = _held_groups(read, fraction)
        train += [picture for picture in read.pictures if picture.group not in kept]
        held += [picture for picture in read.pictures if picture.group in kept]
    return MorePictures(tuple(train), tuple(held), tuple(foreign))


def _held_groups(read: SourcePictures, fraction: float) -> set[str]:
    groups = {picture.group for picture in read.pictures}
    if len(groups) < _LEAST_GROUPS:
        return set()
    return {group for group in groups if _share(f"{read.source.name}/{group}") < fraction}


def _share(name: str) -> float:
    """A number in [0, 1) that a name always gives."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
