# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures to distil on: with labels or without, read once, kept in memory while there is room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np

from monai_effsam.data.io import find_inputs, read_image
from monai_effsam.data.pairs import group_of, split_groups
from monai_effsam.data.sets import Case, known_targets
from monai_effsam.data.slices import LabelledSlice, read_slices, shrunk
from monai_effsam.errors import DataError
from monai_effsam.targets import TARGETS, Target

__all__ = ["PictureFile", "Pictures", "labelled_files", "unlabelled_files"]

MEMORY = 2 * 2**30
"""Bytes of pixels that are kept; what is more is read again whenever it is wanted."""


@dataclass(frozen=True)
class PictureFile:
    """One file of pictures.

    Args:
        path: named in messages.
        group: patient or sequence; held out as a whole.
        read: gives its slices, the same each time.
    """

    path: Path
    group: str
    read: Callable[[], Iterable[LabelledSlice]]


class Pictures(Sequence[LabelledSlice]):
    """Slices of many files. Each file is read once to learn what is in it; one that cannot be read is passed over.

    Args:
        files: of `labelled_files` or `unlabelled_files`.
        memory: bytes of pixels to keep.
        progress: wraps the files, to show how far reading is.

    Attributes:
        failures: path and reason of each file that was passed over.

    Raises:
        DataError: not one file could be read.
    """

    def __init__(
        self,
        files: Sequence[PictureFile],
        *,
        memory: int = MEMORY,
        progress: Callable[[Sequence[PictureFile]], Iterable[PictureFile]] = iter,
    ) -> None:
        self.failures: list[tuple[Path, str]] = []
        self.groups: list[str] = []
        self._places: list[tuple[PictureFile, int]] = []
        self._kept: dict[int, LabelledSlice] = {}
        for file in progress(files):
            try:
                slices = list(file.read())
            except (DataError, OSError) as error:
                self.failures.append((file.path, str(error)))
                continue
            for number, one in enumerate(slices):
                size = one.image.nbytes + one.label.nbytes
                if size <= memory:
                    memory -= size
                    self._kept[len(self._places)] = one
                self._places.append((file, number))
                self.groups.append(file.group)
        if not self._places:
            reason = f" ({self.failures[0][1]})" if self.failures else ""
            raise DataError(
                f"none of {len(files)} pictures can be read{reason}, expected at least one. Mend them."
            )

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> LabelledSlice: ...
    @overload
    def __getitem__(self, index: slice) -> list[LabelledSlice]: ...
    def __getitem__(self, index: int | slice) -> LabelledSlice | list[LabelledSlice]:
        """A slice, from memory or read again."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        if place in self._kept:
            return self._kept[place]
        file, number = self._places[place]
        return next(islice(file.read(), number, None))

    def sets(self, rows: Sequence[int]) -> dict[str, int]:
        """How many of some pictures each set holds; those of no set count as `pictures`."""
        names = [self.groups[row].rpartition("/")[0] or "pictures" for row in rows]
        return dict(Counter(names))

    def held_out(self, share: float, seed: int = 0) -> tuple[list[int], list[int]]:
        """Indices to train on and indices to watch, whole groups; none to watch for a share of 0 or one group."""
        side = split_groups(dict.fromkeys(self.groups), seed=seed, val_share=share) if share > 0 else {}
        watched = [i for i, group in enumerate(self.groups) if side.get(group) == "val"]
        chosen = set(watched)
        return [i for i in range(len(self)) if i not in chosen], watched


def labelled_files(
    cases: Sequence[Case],
    size: int,
    table: Sequence[Target] = TARGETS,
    known_from: Sequence[Case] | None = None,
) -> list[PictureFile]:
    """Files of labelled cases.

    Args:
        cases: what to read.
        size: slices are shrunk to little more than it [px].
        table: the target table.
        known_from: the cases whose sets tell which targets are known; default `cases`.
    """
    known = known_targets(known_from or cases, table)

    def reader(case: Case) -> Callable[[], Iterable[LabelledSlice]]:
        return lambda: read_slices(case, size, table, known[case.set_name])

    return [PictureFile(case.image, f"{case.set_name}/{case.group}", reader(case)) for case in cases]


def unlabelled_files(folder: Path, size: int, modality: str = "") -> list[PictureFile]:
    """Files of a folder of pictures without labels, with its subfolders.

    Args:
        folder: pictures, volumes, DICOM series; `NAME_mask.*` beside a `NAME.*` and a folder `masks` beside `images`
            are no pictures.
        size: slices are shrunk to little more than it [px].
        modality: of files that do not tell theirs; empty for unknown.

    Raises:
        UsageError: no such folder, or nothing in it that could be a picture.
    """
    inner = folder / "images"
    root = inner if inner.is_dir() and (folder / "masks").is_dir() else folder
    sources = find_inputs([root])
    names = {source.name for source in sources}
    sources = [s for s in sources if not (s.name.endswith("_mask") and s.name.removesuffix("_mask") in names)]

    def reader(index: int) -> Callable[[], Iterable[LabelledSlice]]:
        def read() -> Iterable[LabelledSlice]:
            image = read_image(sources[index], modality=modality or None)
            for number in range(len(image)):
                rgb = image.rgb(number)
                rgb, label = shrunk(rgb, np.zeros(rgb.shape[:2], np.uint8), size)
                yield LabelledSlice(rgb, label, modality or image.modality or "", "", "", ())

        return read

    return [PictureFile(s.path, group_of(s.name), reader(i)) for i, s in enumerate(sources)]
