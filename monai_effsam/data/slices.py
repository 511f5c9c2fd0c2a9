# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Labelled pictures in memory, shrunk to little more than the model sees."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from monai_effsam.data.io import read_image, read_label
from monai_effsam.data.sets import Case, known_targets
from monai_effsam.errors import DataError, UnknownNameError
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import TARGETS, Target, targets_of

__all__ = ["LabelledSlice", "hold_out", "load_slices", "read_slices", "resized_label", "shrunk"]

ROOM = 1.25  # pictures are kept a quarter larger than the model's frame, for zooming in


@dataclass(frozen=True, slots=True)
class LabelledSlice:
    """One picture with its label.

    Args:
        image: (H, W, 3) uint8.
        label: (H, W) uint8; 0, or 1 + the target's place among its modality's targets.
        modality: name.
        stratum: its set, or set/class where the set has classes (`busi/normal`).
        case: group it belongs to.
        known: for each target of the modality, whether the label speaks of it.
    """

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    modality: str
    stratum: str
    case: str
    known: tuple[bool, ...]


def hold_out(cases: Sequence[Case], fraction: float) -> tuple[list[Case], list[Case]]:
    """Cases to train on and cases to calibrate on; whole groups, chosen by a hash of their name.

    Sets of fewer than 100 cases are not cut.
    """
    sizes: dict[str, int] = {}
    for case in cases:
        sizes[case.set_name] = sizes.get(case.set_name, 0) + 1
    train: list[Case] = []
    held: list[Case] = []
    for case in cases:
        digest = hashlib.sha256(f"{case.set_name}/{case.group}".encode()).digest()
        share = int.from_bytes(digest[:4], "big") / 2**32
        (held if sizes[case.set_name] >= 100 and share < fraction else train).append(case)
    return train, held


def load_slices(
    cases: Sequence[Case],
    specs: Mapping[str, ImageSpec],
    table: Sequence[Target] = TARGETS,
    known_from: Sequence[Case] | None = None,
) -> list[LabelledSlice]:
    """Read every slice of the cases into memory, shrunk to a little more than the model size.

    Args:
        cases: what to read.
        specs: an `ImageSpec` a modality.
        table: the target table.
        known_from: the cases whose sets tell which targets are known; default `cases`.

    Raises:
        DataError: a picture and its mask differ in size, or a mask holds a value that its set does not name.
        UnknownNameError: a target that is not in the table.
    """
    known = known_targets(known_from or cases, table)
    return [
        s for case in cases for s in read_slices(case, specs[case.modality].size, table, known[case.set_name])
    ]


def read_slices(
    case: Case, size: int, table: Sequence[Target], known: tuple[bool, ...]
) -> Iterator[LabelledSlice]:
    """Every slice of one case, shrunk to a little more than the model size.

    Args:
        case: what to read.
        size: of the model [px].
        table: the target table.
        known: for each target of the modality, whether the set speaks of it.

    Raises:
        DataError: see `load_slices`.
        UnknownNameError: likewise.
    """
    image = read_image(case.image, modality=case.modality)
    masks = read_label(case.mask, image)
    place = {t.name: i for i, t in enumerate(targets_of(case.modality, table), 1)}
    stratum = f"{case.set_name}/{case.label_class}" if case.label_class else case.set_name
    lookup = np.full(256, 255, np.uint8)
    lookup[0] = 0
    for value, name in case.values.items():
        if name not in place:
            raise UnknownNameError(f"{case.set_name}: {case.modality} target", name, place)
        lookup[value] = place[name]
    for index, mask in enumerate(masks):
        label = lookup[mask]
        if (label == 255).any():
            raise DataError(
                f"{case.mask}: holds the value {int(mask[label == 255][0])}, expected 0 or one of "
                f"{sorted(case.values)}. Name it in targets.csv, or as --target NAME=VALUE."
            )
        rgb, label = shrunk(image.rgb(index), label, size)
        yield LabelledSlice(rgb, label, case.modality, stratum, case.group, known)


def shrunk(
    rgb: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8], size: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A picture (H, W, 3) and its label (H, W) at little more than the model size, or as they are if smaller."""
    factor = ROOM * size / max(rgb.shape[:2])
    if factor >= 1:
        return rgb, label
    wide, high = max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor))
    rgb = np.asarray(cv2.resize(rgb, (wide, high), interpolation=cv2.INTER_AREA), np.uint8)
    return rgb, resized_label(label, (high, wide))


def resized_label(label: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A label at (H, W), in register with its picture (plain INTER_NEAREST is off by up to half a pixel)."""
    return np.asarray(cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
