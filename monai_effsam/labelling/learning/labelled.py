# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Labels of a store to slices to learn from: values by the names that the label tells, on the grid of its image."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import read_image
from monai_effsam.data.pairs import group_of, split_groups
from monai_effsam.data.slices import LabelledSlice, shrunk
from monai_effsam.errors import DataError, EffsamError
from monai_effsam.labelling.images import OpenedImage
from monai_effsam.labelling.learning.grid import label_on_grid
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import Target, targets_of

__all__ = ["LabelledItem", "label_values", "labelled_items", "read_items", "split_items"]

log = logging.getLogger(__name__)

_SLICES = 32
"""Slices of one volume that are learnt from, at most."""


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """An image with a submitted label.

    Args:
        image_id: of the store.
        image: file, or folder of a series.
        label: file.
        names: value -> name, as the label tells; empty where it tells none.
        group: patient or sequence, of which all labels train or all judge; empty: what the id says.
    """

    image_id: str
    image: Path
    label: Path
    names: Mapping[int, str]
    group: str = ""


def labelled_items(rows: Sequence[Mapping[str, Any]]) -> list[LabelledItem]:
    """The items of a datastore's `datalist()`, by id.

    Args:
        rows: with `image`, `label` and `meta`, whose `label` holds what was submitted along, and whose `image` the
            patient and the study, where the images are of a PACS.
    """
    items = []
    for row in rows:
        meta = row.get("meta") or {}
        info, image = meta.get("label") or {}, meta.get("image") or {}
        label = Path(row["label"])
        name = str(info.get("image_id") or _without_ending(str(info.get("name") or label.name)))
        # UIDs of one origin differ in their last numbers alone: what a name tells of patients, they do not
        group = str(image.get("PatientID") or image.get("StudyInstanceUID") or "")
        items.append(LabelledItem(name, Path(row["image"]), label, label_values(info), group))
    return sorted(items, key=lambda item: item.image_id)


def label_values(info: Mapping[str, Any]) -> dict[int, str]:
    """Value -> name, from what a client sent with a label.

    Args:
        info: `label_info`, a list of {name, idx}, from viewers; else `params.label_names`, a dict name -> value, from
            our own replies.
    """
    listed = info.get("label_info")
    if isinstance(listed, list):
        found = {}
        for number, one in enumerate(listed, 1):
            if isinstance(one, Mapping) and one.get("name"):
                value = one.get("idx", one.get("id", number))
                found[int(value)] = str(one["name"])
        return found
    names = (info.get("params") or {}).get("label_names")
    return {int(value): str(name) for name, value in names.items()} if isinstance(names, Mapping) else {}


def split_items(
    items: Sequence[LabelledItem], held_share: float
) -> tuple[list[LabelledItem], list[LabelledItem]]:
    """Items to train on and items to judge by; frames and slices of one patient stay together.

    A hash of the name decides, so that a label that once judged never trains, whatever is added.
    """
    groups = [item.group or group_of(item.image_id) for item in items]
    sides = split_groups(groups, val_share=held_share)
    train: list[LabelledItem] = []
    held: list[LabelledItem] = []
    for item, group in zip(items, groups, strict=True):
        (held if sides[group] == "val" else train).append(item)
    return train, held


def read_items(
    items: Sequence[LabelledItem],
    specs: Mapping[str, ImageSpec],
    table: Sequence[Target],
    modality: str | None,
) -> list[LabelledSlice]:
    """Labelled slices of all items; one that cannot be used is passed over, with a warning.

    A label speaks of the targets that any of the labels of its modality names: a viewer lists the structures that it
    found drawn, and what a colleague drew elsewhere is then known to be absent here.

    Args:
        items: to be read.
        specs: of the model, by modality.
        table: the model's targets.
        modality: of images that do not tell it.
    """
    read: list[LabelledSlice] = []
    for item in items:
        try:
            read.extend(_read(item, specs, table, modality))
        except (EffsamError, OSError) as error:
            log.warning("%s: passed over, %s", item.image_id, error)
    spoken = _spoken_of(read)
    return [replace(one, known=spoken[one.modality]) for one in read]


def _spoken_of(slices: Sequence[LabelledSlice]) -> dict[str, tuple[bool, ...]]:
    """For each modality, which of its targets any slice speaks of."""
    found: dict[str, tuple[bool, ...]] = {}
    for one in slices:
        before = found.get(one.modality, one.known)
        found[one.modality] = tuple(a or b for a, b in zip(before, one.known, strict=True))
    return found


def _read(
    item: LabelledItem, specs: Mapping[str, ImageSpec], table: Sequence[Target], modality: str | None
) -> Iterator[LabelledSlice]:
    image = read_image(item.image, modality=modality)
    own = OpenedImage(image).told(modality, specs).modality
    if own is None:
        raise DataError(
            f"{item.image_id}: modality is {modality}, expected one of {', '.join(specs)}. Name one."
        )
    places = {_plain(t.name): n for n, t in enumerate(targets_of(own, table), 1)}
    names = dict(item.names) or {t.value: t.name for t in targets_of(own, table)}
    lookup = np.zeros(256, np.uint8)  # what the model does not know is nothing to it
    for value, name in names.items():
        if 0 < value < 256 and _plain(name) in places:
            lookup[value] = places[_plain(name)]
    known = tuple(n in lookup for n in range(1, len(places) + 1))
    if not any(known):
        raise DataError(
            f"{item.image_id}: label names {', '.join(names.values())}, expected one of {', '.join(places)}. Rename it."
        )
    label = lookup[label_on_grid(item.label, image)]
    for index in _chosen(label):
        rgb, mask = shrunk(image.rgb(index), label[index], specs[own].size)
        yield LabelledSlice(rgb, mask, own, own, item.image_id, known)


def _chosen(label: NDArray[np.uint8]) -> list[int]:
    """Slices of a volume to learn from: evenly spread over what is labelled, and a few beside it."""
    if len(label) <= _SLICES:
        return list(range(len(label)))
    filled = np.flatnonzero(label.any((1, 2)))
    empty = np.setdiff1d(np.arange(len(label)), filled)
    most = _SLICES * 3 // 4 if len(filled) else 0
    rows = [*_spread(filled, most), *_spread(empty, _SLICES - min(most, len(filled)))]
    return sorted(rows)


def _spread(rows: NDArray[np.intp], count: int) -> list[int]:
    at = (
        np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
        if len(rows)
        else []
    )
    return [int(rows[i]) for i in at]


def _plain(name: str) -> str:
    """A name as it is compared: small letters, runs of anything else as one underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _without_ending(name: str) -> str:
    from monai_effsam.data.io.sniff import stem

    return stem(Path(name))
