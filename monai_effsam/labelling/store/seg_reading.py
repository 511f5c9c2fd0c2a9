# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A DICOM Segmentation, whoever made it, on the grid of the images that it refers to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Image
from monai_effsam.data.io.dicom_sources import read_sources
from monai_effsam.data.io.grid import lps_to_ras
from monai_effsam.data.io.quiet import quiet
from monai_effsam.errors import DataError
from monai_effsam.labelling.geometry import stored_affine, stored_size
from monai_effsam.labelling.learning.grid import resampled

__all__ = ["made_at", "read_seg", "referenced_series"]


def referenced_series(metadata: Any) -> str:
    """UID of the series that a segmentation's header refers to, empty where it tells none.

    Args:
        metadata: a pydicom data set.
    """
    for item in metadata.get("ReferencedSeriesSequence") or ():
        if item.get("SeriesInstanceUID"):
            return str(item.SeriesInstanceUID)
    return ""


def made_at(metadata: Any) -> str:
    """When a segmentation was made, as text that sorts by time: 20260131093000.5; empty where it is not told.

    Args:
        metadata: a pydicom data set.
    """
    day = str(metadata.get("ContentDate") or "").replace(".", "")
    return day and day + str(metadata.get("ContentTime") or "").replace(":", "")


def read_seg(path: Path, image: Image) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Segments as mask values, and their names.

    Frames that name a slice of the image and have its size lie on it pixel for pixel; others (cropped, or of another
    grid) are taken over by their place in space. Where segments overlap, the one with the higher number counts.

    Args:
        path: of the segmentation.
        image: of kind "dicom", the series it refers to.

    Returns:
        (N, H, W) uint8 in the order of the image's slices, values are segment numbers; value -> label of the segment.

    Raises:
        DataError: unreadable, more than 255 segments, or frames that tell no place.
    """
    import pydicom

    try:
        with quiet():
            seg = pydicom.dcmread(path)
            frames = np.asarray(seg.pixel_array)
    except Exception as error:
        raise DataError(f"{path}: is no readable DICOM Segmentation ({error}). Store it again.") from error
    frames = frames.reshape(-1, *frames.shape[-2:])
    top = int(seg.get("MaximumFractionalValue") or 1)
    names = {
        int(one.SegmentNumber): str(one.get("SegmentLabel") or f"segment_{one.SegmentNumber}")
        for one in seg.SegmentSequence
    }
    if max(names, default=0) > 255:
        raise DataError(f"{path}: has segment numbers up to {max(names)}, expected at most 255. Split it.")
    order = read_sources(image, image.size).frames
    mask = np.zeros((len(image), *image.size), np.uint8)
    elsewhere: dict[int, list[tuple[Any, NDArray[np.bool_]]]] = {}
    for group, pixels in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        shown, place = 2 * pixels.astype(int) >= top, _slice_of(group, order)
        if place is not None and shown.shape == image.size:
            mask[place][shown & (mask[place] < number)] = number
        else:
            elsewhere.setdefault(number, []).append((group, shown))
    for number, parts in sorted(elsewhere.items()):
        there = _by_place(path, seg, parts, image)
        mask[there & (mask < number)] = number
    return mask, names


def _slice_of(group: Any, order: dict[tuple[str, int], int]) -> int | None:
    """The slice that a frame names as its source."""
    for item in group.get("DerivationImageSequence") or ():
        for source in item.get("SourceImageSequence") or ():
            number = source.get("ReferencedFrameNumber") or 1
            key = (
                str(source.ReferencedSOPInstanceUID),
                int(number if isinstance(number, int | str) else number[0]),
            )
            if key in order:
                return order[key]
    return None


def _by_place(
    path: Path, seg: Any, parts: list[tuple[Any, NDArray[np.bool_]]], image: Image
) -> NDArray[np.bool_]:
    """Frames of one segment, by their position and orientation, on the image's grid."""
    shared = seg.SharedFunctionalGroupsSequence[0]

    def told(group: Any, sequence: str, name: str) -> NDArray[np.float64]:
        for holder in (group, shared):
            if sequence in holder:
                return np.array([float(v) for v in getattr(getattr(holder, sequence)[0], name)])
        raise DataError(
            f"{path}: frames tell no {name} and refer to no slice, expected either. Store it again."
        )

    first = parts[0][0]
    across, down = told(first, "PlaneOrientationSequence", "ImageOrientationPatient").reshape(2, 3)
    spacing = told(first, "PixelMeasuresSequence", "PixelSpacing")
    normal = np.cross(across, down)
    placed = [(told(g, "PlanePositionSequence", "ImagePositionPatient"), m) for g, m in parts]
    at = sorted(placed, key=lambda one: float(one[0] @ normal))
    heights = np.array([place @ normal for place, _ in at])
    step = float(np.diff(heights).min()) if len(at) > 1 else _step(first, shared, image)
    rows = np.round((heights - heights[0]) / step).astype(int)
    volume = np.zeros((at[0][1].shape[1], at[0][1].shape[0], rows[-1] + 1), np.uint8)
    for row, (_, shown) in zip(rows, at, strict=True):
        volume[:, :, row] = shown.T
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = across * spacing[1], down * spacing[0], normal * step
    affine[:3, 3] = at[0][0]
    shape, own = stored_size(image), stored_affine(image)
    values = resampled(volume, lps_to_ras(affine), shape, own)
    view = getattr(image.geometry, "view", None)
    return np.asarray((values.transpose(2, 1, 0) if view is None else view.slices(values)) > 0)


def _step(group: Any, shared: Any, image: Image) -> float:
    """Thickness of a single frame."""
    for holder in (group, shared):
        for item in holder.get("PixelMeasuresSequence") or ():
            if item.get("SliceThickness"):
                return float(item.SliceThickness)
    return float(image.slice_step_mm or 1.0)
