# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures of known modalities, as the modality router learns and is judged on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from monai_effsam.data.io import CT_WINDOWS, Image, read_image
from monai_effsam.data.sets import Case

__all__ = ["ModalityPicture", "case_pictures", "kept_size", "middle_slices", "of_sources", "source_of"]

Pixels = npt.NDArray[np.uint8]

LONGEST = 256
"""Pictures are kept no larger [px]: the router looks at fewer pixels still, and every view crops."""

_MIDDLE = (0.2, 0.8)
"""Share of a stack that is looked at: its ends show little."""

_LEAST_SIDE = 16
_LEAST_SPREAD = 6.0
"""Standard deviation [grey values] under which a slice shows nothing."""


@dataclass(frozen=True, slots=True)
class ModalityPicture:
    """One picture of a known modality, or a foreign one.

    Args:
        image: (H, W, 3) uint8.
        modality: name; empty for a foreign picture.
        source: where it is from: set and class of the set, or the kind of a foreign picture.
        group: patient or sequence; on one side of a split only.
    """

    image: Pixels
    modality: str
    source: str
    group: str


def source_of(case: Case) -> str:
    """The source of a case: its set, and the class where the set has classes (`chest_xray/manual`)."""
    return f"{case.set_name}/{case.label_class}" if case.label_class else case.set_name


def of_sources(cases: Sequence[Case], names: Sequence[str]) -> tuple[list[Case], list[Case]]:
    """(cases of the named sources, all others); a name is that of a set or of one class of it."""
    own = [case for case in cases if case.set_name in names or source_of(case) in names]
    chosen = {id(case) for case in own}
    return own, [case for case in cases if id(case) not in chosen]


def middle_slices(count: int, most: int) -> list[int]:
    """At most `most` places, evenly spread over the middle of a stack of `count` slices."""
    low, high = (share * (count - 1) for share in _MIDDLE)
    return sorted({round(low + (high - low) * (i + 0.5) / most) for i in range(most)})


def case_pictures(case: Case, *, most: int = 8, varied: bool = False) -> Iterator[ModalityPicture]:
    """The picture of a case, or some slices of its volume.

    Args:
        case: of a labelled set; its mask is not read.
        most: slices of a volume, in each plane.
        varied: also the other two planes of a volume, and all windows of CT volumes.

    Raises:
        DataError: the image cannot be read.
    """
    image = read_image(case.image, modality=case.modality)
    stacks = [image.slices]
    if varied and image.is_volume:
        windows = CT_WINDOWS if case.modality == "ct" else ("soft_tissue",)
        stacks = [
            np.moveaxis(stack, plane, 0)
            for window in windows
            for stack in [_windowed(image, case, window)]
            for plane in (0, 1, 2)
        ]
    for stack in stacks:
        if len(stack) > 1 and min(stack.shape[1:3]) < _LEAST_SIDE:
            continue
        for index in middle_slices(len(stack), most):
            one = stack[index]
            if len(stack) > 1 and one.std() < _LEAST_SPREAD:
                continue
            rgb = one if one.ndim == 3 else np.repeat(one[..., None], 3, axis=2)
            group = f"{case.set_name}/{case.group}"
            yield ModalityPicture(kept_size(rgb), case.modality, source_of(case), group)


def kept_size(rgb: Pixels) -> Pixels:
    """A picture (H, W, 3) shrunk to `LONGEST`, or as it is if smaller."""
    factor = LONGEST / max(rgb.shape[:2])
    if factor >= 1:
        return np.ascontiguousarray(rgb)
    size = max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _windowed(image: Image, case: Case, window: str) -> Pixels:
    if window == "soft_tissue":
        return image.slices
    return read_image(case.image, ct_window=window, modality=case.modality).slices
