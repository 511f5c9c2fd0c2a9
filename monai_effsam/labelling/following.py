# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Clicks in a volume: each prompted slice is outlined, and the object followed through its neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Image
from monai_effsam.inference.propagation import SliceOutline, propagate
from monai_effsam.labelling.prompting import box_places, places, prompts_of
from monai_effsam.labelling.requests import Clicks
from monai_effsam.specs import Prompts

__all__ = ["outline_volume"]


def outline_volume(
    image: Image, clicks: Clicks, outline: Callable[[int, Prompts], SliceOutline]
) -> tuple[NDArray[np.bool_], float | None]:
    """What clicks and a region show in a volume.

    Slices with a point inside are prompted; without any, the middle slice of the region is. The object stays in the
    region. Points outside count in every slice that they lie in, prompted or reached.

    Args:
        image: cut across its acquisition axis.
        clicks: in indices of the stored array.
        outline: what a prompt outlines in a slice.

    Returns:
        The object, (N, H, W), and its mean quality over the slices that show it; None where nothing was prompted.

    Raises:
        UsageError: a prompt outside of the image.
    """
    mask = np.zeros((len(image), *image.size), np.bool_)
    slices, prompted = range(len(image)), {p.slice for p in places(image, clicks.foreground, "foreground")}
    if clicks.roi is not None:
        low, high = box_places(image, clicks.roi)
        if high.slice > low.slice or not prompted:
            prompted = {index for index in prompted if low.slice <= index <= high.slice}
            prompted = prompted or {(low.slice + high.slice) // 2}
        if high.slice > low.slice:  # a flat region is drawn in one slice, and says nothing of the others
            slices = range(low.slice, high.slice + 1)
    outside: dict[int, list[tuple[float, float]]] = {}
    for place in places(image, clicks.background, "background"):
        outside.setdefault(place.slice, []).append((place.column + 0.5, place.row + 0.5))

    def corrected(index: int, prompts: Prompts) -> SliceOutline:
        more = tuple(outside.get(index, ()))
        return outline(
            index, Prompts((*prompts.points, *more), (*prompts.labels, *(0,) * len(more)), prompts.box)
        )

    seeds = {}
    for index in sorted(prompted):
        prompts = prompts_of(image, clicks, index)
        if prompts is not None:
            seeds[index] = outline(index, prompts)
    found = propagate(seeds, corrected, lambda index: image.slices[index], slices)
    for index, one in found.items():
        mask[index] = one.mask
    shown = [one.quality for one in found.values() if one.mask.any()] or [s.quality for s in seeds.values()]
    return mask, float(np.mean(shown)) if shown else None
