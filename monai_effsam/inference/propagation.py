# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""An object that was prompted on some slices of a volume, followed through its neighbours until it ends.

Slice by slice away from each prompted one, the box of the last outline is the next prompt. The object has ended where
nothing is outlined, where the model itself doubts the outline, or where the outline has left the object: it hardly
overlaps the last, it bursts, or it lies on tissue of another brightness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_effsam.specs import Prompts

__all__ = ["PropagationRule", "SliceOutline", "next_prompt", "propagate"]


class SliceOutline(NamedTuple):
    """An object in one slice.

    Attributes:
        mask: (H, W) bool.
        quality: the model's own estimate of IoU, 0..1.
        presence: probability that the object is there, 0..1; 1 of models that do not tell.
    """

    mask: NDArray[np.bool_]
    quality: float
    presence: float = 1.0


@dataclass(frozen=True, slots=True)
class PropagationRule:
    """When an object has ended.

    Args:
        quality: floor of the model's own estimate of IoU.
        presence: floor of the probability that the object is there.
        area: smallest outline, as a part of the largest so far.
        pixels: smallest outline [px].
        overlap: smallest part of the smaller of two neighbouring outlines that lies in the other.
        growth: largest area, as a multiple of the last.
        brightness: largest distance of the mean grey value from that of the prompted slice, in standard deviations of
            the object there.
        margin: pixels that a box is wider than the last outline, on each side, as a part of its longer side.
    """

    quality: float = 0.2
    presence: float = 0.5
    area: float = 0.03
    pixels: int = 4
    overlap: float = 0.5
    growth: float = 2.0
    brightness: float = 1.2
    margin: float = 0.0


RULE = PropagationRule()
_LEAST_SPREAD = 12.0  # grey values; a flat object has noise too
Outliner = Callable[[int, Prompts], SliceOutline]


def propagate(
    seeds: Mapping[int, SliceOutline],
    outline: Outliner,
    picture: Callable[[int], NDArray[np.uint8]],
    slices: range,
    rule: PropagationRule = RULE,
) -> dict[int, SliceOutline]:
    """Outlines of an object on the prompted slices and on all that it reaches from there.

    Between two prompted slices each one is followed to the middle, so that the nearer prompt counts.

    Args:
        seeds: slice -> outline of each prompted slice; empty ones stay and are not followed.
        outline: what a prompt outlines in a slice.
        picture: pixels (H, W) or (H, W, 3) of a slice.
        slices: where the object may be.
        rule: when it has ended.

    Returns:
        Slice -> outline, prompted slices among them.
    """
    found = dict(seeds)
    prompted = sorted(seeds)
    for place, seed in enumerate(prompted):
        if not seeds[seed].mask.any():
            continue
        before = prompted[place - 1] if place else None
        after = prompted[place + 1] if place + 1 < len(prompted) else None
        first = slices.start if before is None else (before + seed) // 2 + 1
        last = slices.stop if after is None else (seed + after) // 2 + 1
        for way in (range(seed + 1, last), range(seed - 1, first - 1, -1)):
            found.update(_follow(seeds[seed], picture(seed), outline, picture, way, rule))
    return found


def _follow(
    seed: SliceOutline,
    seed_picture: NDArray[np.uint8],
    outline: Outliner,
    picture: Callable[[int], NDArray[np.uint8]],
    way: range,
    rule: PropagationRule,
) -> dict[int, SliceOutline]:
    """Outlines of the slices of one way, to where the object ends."""
    grey, spread = _brightness(seed_picture, seed.mask)
    last, largest = seed.mask, int(seed.mask.sum())
    found: dict[int, SliceOutline] = {}
    for index in way:
        new = outline(index, next_prompt(last, rule.margin))
        area, before = int(new.mask.sum()), int(last.sum())
        if area < max(rule.pixels, rule.area * largest):
            break
        if new.quality < rule.quality or new.presence < rule.presence:
            break
        if int((new.mask & last).sum()) < rule.overlap * min(area, before) or area > rule.growth * before:
            break
        if abs(_brightness(picture(index), new.mask)[0] - grey) > rule.brightness * spread:
            break
        found[index] = new
        last, largest = new.mask, max(largest, area)
    return found


def next_prompt(mask: NDArray[np.bool_], margin: float = 0.0) -> Prompts:
    """What says "this object" in a neighbouring slice: the box of an outline.

    A point beside it makes it worse where a model reads a point as "this part" (measured on organs in CT and MR).

    Args:
        mask: (H, W), not empty.
        margin: how much wider the box is on each side, as a part of its longer side.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    wider = margin * max(y1 - y0, x1 - x0)
    height, width = mask.shape
    return Prompts(
        box=(max(0.0, x0 - wider), max(0.0, y0 - wider), min(width, x1 + wider), min(height, y1 + wider))
    )


def _brightness(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean grey value under a mask, and its spread."""
    values = picture[mask].astype(np.float32)
    return float(values.mean()), max(_LEAST_SPREAD, float(values.std()))
