# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""DICOM files of a folder -> stacks and single pictures, by their headers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_effsam.data.io import dicom_header as header
from monai_effsam.data.io.image import Source
from monai_effsam.data.io.quiet import quiet
from monai_effsam.data.io.sniff import stem

__all__ = ["group_series"]

_TAGS = (
    "SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "AcquisitionNumber", "Rows",
    "Columns", "SamplesPerPixel", "NumberOfFrames", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing",
)  # fmt: skip


@dataclass(frozen=True)
class _Slice:
    path: Path
    along: float
    number: float
    series: int


def group_series(files: Sequence[Path]) -> list[Source]:
    """Inputs of DICOM files: slices of one series and plane as one stack, everything else a file each.

    A stack is sorted along its normal. Where a position occurs several times (phases, echoes), the k-th file
    at each position, by instance number, belongs to the k-th stack. Files that cannot be read or are no
    images stay single, so that reading them says why.

    Args:
        files: DICOM files, sorted.

    Returns:
        Sources in the order of their first file; a stack is called after its folder, with the series number
        where the folder holds several.
    """
    groups: dict[Hashable, list[_Slice]] = defaultdict(list)
    singles: list[Path] = []
    for path in files:
        with quiet():
            placed = _placed(path)
        if placed is None:
            singles.append(path)
        else:
            groups[placed[0]].append(placed[1])
    stacks: list[list[_Slice]] = []
    for members in groups.values():
        for stack in _stacks(members):
            if len(stack) > 1:
                stacks.append(stack)
            else:
                singles.append(stack[0].path)
    sources = [Source((path,), "dicom", stem(path)) for path in singles]
    for stack in stacks:
        folder = stack[0].path.resolve().parent
        alone = sum(other[0].path.resolve().parent == folder for other in stacks) == 1
        name = folder.name if alone else f"{folder.name}_{stack[0].series}"
        sources.append(Source(tuple(s.path for s in stack), "dicom", name or "series"))
    order = {path: index for index, path in enumerate(files)}
    return sorted(sources, key=lambda source: min(order[p] for p in source.paths))


def _placed(path: Path) -> tuple[Hashable, _Slice] | None:
    """The stack that a file may belong to, and its place there; None for files that stand alone."""
    try:
        data = header.open_dicom(path, tags=_TAGS)
        name = str(getattr(data.get("SOPClassUID"), "name", ""))
        directions, positions = header.orientation_of(data), header.positions_of(data)
        if (
            header.frame_count(data) != 1
            or directions is None
            or positions is None
            or "Image Storage" not in name
        ):
            return None
        spacing = header.spacing_of(data)[0]
        plane = tuple(float(v) for v in directions.round(3).ravel() + 0.0)
        shape = (data.get("Rows"), data.get("Columns"), data.get("SamplesPerPixel"))
        key = (path.parent, str(data.get("SeriesInstanceUID")), shape, plane, spacing)
        along = float(positions[0] @ header.normal_of(directions))
        numbers = [header.first_number(data.get(tag)) or 0.0 for tag in ("InstanceNumber", "SeriesNumber")]
    except header.DAMAGED:
        return None
    return key, _Slice(path, along, numbers[0], int(numbers[1]))


def _stacks(members: list[_Slice]) -> list[list[_Slice]]:
    """Members at growing positions; the k-th file at a position goes to the k-th stack."""
    stacks: list[list[_Slice]] = []
    level, last = 0, float("nan")
    for one in sorted(members, key=lambda s: (round(s.along, 2), s.number, str(s.path))):
        here = round(one.along, 2)
        level = level + 1 if here == last else 0
        last = here
        if level == len(stacks):
            stacks.append([])
        stacks[level].append(one)
    return stacks
