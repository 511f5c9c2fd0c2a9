# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Near-duplicates on both sides of a split: the same picture, resized or compressed anew, makes validation too kind.

Pictures are compared by a perceptual hash of 256 bits: the 16 x 16 lowest terms of the cosine transform of the
64 x 64 grey picture, each above their median or not. Copies of one picture differ in fewer than 24 bits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from monai_effsam.data.io import read_image
from monai_effsam.data.sets import Case
from monai_effsam.errors import EffsamError, ShapeError

__all__ = ["Duplicate", "find_duplicates", "perceptual_hashes", "warn_of_duplicates"]

log = logging.getLogger(__name__)

_SIDE, _TERMS = 64, 16
_ROWS = 512  # of the distance matrix at once
_NAMED = 5


class Duplicate(NamedTuple):
    """Two cases of different splits that look the same.

    Attributes:
        first: the earlier of the two in the list given.
        second: the other.
        distance: bits of 256 in which they differ.
    """

    first: Case
    second: Case
    distance: int


def perceptual_hashes(pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.bool_]:
    """Hashes (N, 256) of grey (H, W) or RGB (H, W, 3) pictures of any size.

    Raises:
        ShapeError: a picture of another shape or type.
    """
    small = np.zeros((len(pictures), _SIDE, _SIDE), np.float32)
    for row, picture in zip(small, pictures, strict=True):
        row[...] = _small_grey(picture)
    angle = np.pi / _SIDE * np.outer(np.arange(_TERMS), np.arange(_SIDE) + 0.5)
    basis = np.cos(angle).astype(np.float32)  # rows of the DCT-II; a common factor changes no comparison
    basis[0] /= np.float32(np.sqrt(2))
    terms = (basis @ small @ basis.T).reshape(len(pictures), _TERMS**2)
    return np.asarray(terms > np.median(terms, axis=1, keepdims=True))


def find_duplicates(cases: Sequence[Case], threshold: int = 24) -> list[Duplicate]:
    """Pairs of cases of one modality, in different splits, whose hashes differ in at most `threshold` bits.

    Of a volume the middle slice counts. Images that cannot be read are logged and passed over.

    Args:
        cases: of all splits.
        threshold: bits of 256.

    Returns:
        The pairs, nearest first.
    """
    pairs: list[Duplicate] = []
    for modality in dict.fromkeys(case.modality for case in cases):
        own = [case for case in cases if case.modality == modality]
        if len({case.split for case in own}) > 1:
            pairs += _compare(*_hashed(own), threshold)
    return sorted(pairs, key=lambda pair: pair.distance)


def warn_of_duplicates(cases: Sequence[Case], threshold: int = 24) -> list[Duplicate]:
    """The pairs of `find_duplicates`, with a warning in the log that names the nearest five."""
    pairs = find_duplicates(cases, threshold)
    if pairs:
        named = [
            f"{a.image} ({a.split}) and {b.image} ({b.split}), {distance} of 256 bits apart"
            for a, b, distance in pairs[:_NAMED]
        ]
        rest = f"; and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
        log.warning(
            "%d near-duplicate pairs across splits, expected none, since scores would be too kind: %s%s. "
            "Put each pair into one group.",
            len(pairs),
            "; ".join(named),
            rest,
        )
    return pairs


def _small_grey(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
        raise ShapeError(
            f"perceptual_hashes: picture has shape {picture.shape} {picture.dtype}, expected (H, W) or (H, W, 3) uint8."
        )
    shrunk = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = shrunk if shrunk.ndim == 2 else cv2.cvtColor(shrunk, cv2.COLOR_RGB2GRAY)
    return np.asarray(grey, np.float32)


def _hashed(cases: Iterable[Case]) -> tuple[list[Case], npt.NDArray[np.bool_]]:
    """The cases that can be read, and their hashes."""
    readable, hashes = [], []
    for case in cases:
        try:
            image = read_image(case.image, modality=case.modality)
        except EffsamError as error:
            log.warning("not compared with the other splits: %s", error)
            continue
        readable.append(case)
        hashes.append(perceptual_hashes([image.slices[len(image) // 2]])[0])
    return readable, np.array(hashes, np.bool_).reshape(-1, _TERMS**2)


def _compare(cases: Sequence[Case], hashes: npt.NDArray[np.bool_], threshold: int) -> list[Duplicate]:
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    names = list(dict.fromkeys(case.split for case in cases))
    split = np.array([names.index(case.split) for case in cases])
    found = []
    for start in range(0, len(cases), _ROWS):
        distance = (_TERMS**2 - signs[start : start + _ROWS] @ signs.T) / 2
        near = (distance <= threshold) & (split[start : start + _ROWS, None] != split)
        for row, column in np.argwhere(near).tolist():
            if start + row < column:
                found.append(
                    Duplicate(cases[start + row], cases[column], round(float(distance[row, column])))
                )
    return found
