# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A viewer's clicks as prompts of one slice.

A point becomes the middle of its pixel. A corner of a region lies in the middle of the voxel that Slicer rounded it to.
What lies one voxel outside is rounding and is pulled in; what lies further out is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from monai_effsam.data.io import Image
from monai_effsam.errors import UsageError
from monai_effsam.labelling.geometry import Place, place_of, stored_size
from monai_effsam.labelling.requests import Clicks, Voxel
from monai_effsam.specs import Prompts

__all__ = ["box_places", "places", "prompts_of", "slice_of"]

_ROUNDING = 1


def slice_of(image: Image, clicks: Clicks) -> int | None:
    """Index, in the image's own order, of the slice that 2D clicks are about; None where they say nothing.

    Raises:
        UsageError: it lies outside of the image.
    """
    z = stored_size(image)[2]
    if clicks.slice is not None:
        k = clicks.slice
    elif clicks.foreground or clicks.background:
        k = (clicks.foreground or clicks.background)[-1][2]
    elif clicks.roi is not None:
        k = round((clicks.roi[4] + clicks.roi[5]) / 2)
    else:
        return None
    if not -_ROUNDING <= k < z + _ROUNDING:
        raise UsageError(f"slice: is {k}, expected 0..{z - 1}. Click in the image.")
    return place_of(image, (0, 0, min(max(k, 0), z - 1))).slice


def prompts_of(image: Image, clicks: Clicks, index: int) -> Prompts | None:
    """What the clicks say about one slice; None where nothing says that the object is there.

    Args:
        image: cut as the clicks are about it.
        clicks: points of other slices are passed over, and a region that does not reach the slice.
        index: of the slice, in the image's order.

    Raises:
        UsageError: a prompt outside of the image.
    """
    inside = [p for p in places(image, clicks.foreground, "foreground") if p.slice == index]
    outside = [p for p in places(image, clicks.background, "background") if p.slice == index]
    box = None
    if clicks.roi is not None:
        low, high = box_places(image, clicks.roi)
        if low.slice <= index <= high.slice:
            height, width = image.size
            x0, x1 = _side(low.column, high.column, width)
            y0, y1 = _side(low.row, high.row, height)
            box = (x0, y0, x1, y1)
    if not inside and box is None:
        return None
    return Prompts(
        tuple((p.column + 0.5, p.row + 0.5) for p in (*inside, *outside)),
        (1,) * len(inside) + (0,) * len(outside),
        box,
    )


def places(image: Image, voxels: Iterable[Voxel], key: str) -> list[Place]:
    """Where voxels lie, each pulled in by a voxel at most.

    Raises:
        UsageError: one lies further outside.
    """
    size = stored_size(image)
    found = []
    for voxel in dict.fromkeys(voxels):
        if any(not -_ROUNDING <= v < n + _ROUNDING for v, n in zip(voxel, size, strict=True)):
            limits = ", ".join(f"0..{n - 1}" for n in size)
            raise UsageError(
                f"{key}: point {list(voxel)} is outside the image, expected {limits}. Remove it."
            )
        i, j, k = (min(max(v, 0), n - 1) for v, n in zip(voxel, size, strict=True))
        found.append(place_of(image, (i, j, k)))
    return found


def box_places(image: Image, roi: tuple[float, ...]) -> tuple[Place, Place]:
    """The first and the last slice, row and column of a region, cut to the image.

    Raises:
        UsageError: it does not touch the image.
    """
    size = stored_size(image)
    pairs = [(round(roi[2 * a]), round(roi[2 * a + 1])) for a in range(3)]
    if any(high < 0 or low >= n for (low, high), n in zip(pairs, size, strict=True)):
        raise UsageError(f"roi: {list(roi)} does not touch the image of {list(size)} voxels. Move it.")
    cut = [(max(low, 0), min(high, n - 1)) for (low, high), n in zip(pairs, size, strict=True)]
    (i0, i1), (j0, j1), (k0, k1) = cut
    one, other = place_of(image, (i0, j0, k0)), place_of(image, (i1, j1, k1))
    return Place(*map(min, one, other)), Place(*map(max, one, other))


def _side(low: int, high: int, size: int) -> tuple[float, float]:
    """A box's side between the middles of two pixels; as wide as the pixel where they are one."""
    return (low + 0.5, min(high + 0.5, size)) if high > low else (float(low), float(low + 1))
