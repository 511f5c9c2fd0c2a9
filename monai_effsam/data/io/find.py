# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Files and folders named by a user -> inputs, each with a name that no other has."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from monai_effsam.data.io.image import Source
from monai_effsam.data.io.sniff import ENDINGS, content_kind, stem
from monai_effsam.errors import UsageError

__all__ = ["find_inputs"]

_OURS = ("_mask.png", "_mask.nii.gz", "_overlay.png", "_seg.dcm")


def find_inputs(paths: Sequence[Path]) -> list[Source]:
    """Every input that the paths name, in their order, folders expanded and sorted by name.

    Folders are searched with their subfolders. Of them count the files whose content is an image and those
    whose ending promises one, so that a damaged picture is reported; hidden files count never, and neither do
    our own masks, overlays and segmentations (beside a results.jsonl).

    Outputs are named after the file without its ending (a DICOM series after its folder). Where two inputs
    would share a name (also if only case differs), each gets its ending (`a_png`, `a_jpg`), then the name of
    its folder in front, then a number.

    Raises:
        UsageError: a path that does not exist or cannot be opened, or a folder without images.
    """
    found: dict[Path, Source] = {}
    for path in paths:
        for source in _expand(path):
            found.setdefault(source.paths[0].resolve(), source)
    return _with_unique_names(list(found.values()))


def _expand(path: Path) -> list[Source]:
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder, expected an image. Check the name.")
    if not path.is_dir():
        if not os.access(path, os.R_OK):
            raise UsageError(f"{path}: no permission to read it. Change its permissions.")
        return [Source((path,), content_kind(path), stem(path))]
    sources = [Source((p,), content_kind(p), stem(p)) for p in _files(path)]
    dicom = [s.paths[0] for s in sources if s.kind == "dicom"]
    if dicom:
        from monai_effsam.data.io.series import group_series

        place = {s.paths[0]: index for index, s in enumerate(sources)}
        sources = [s for s in sources if s.kind != "dicom"] + group_series(dicom)
        sources.sort(key=lambda s: min(place[p] for p in s.paths))
    if not sources:
        raise UsageError(f"{path}: folder holds no images, expected {' '.join(ENDINGS)} or DICOM files.")
    return sources


def _files(folder: Path) -> list[Path]:
    """Files of a folder and its subfolders that may be images, sorted."""

    def refuse(error: OSError) -> None:
        raise UsageError(
            f"{error.filename}: folder cannot be opened: {error.strerror}. Change its permissions."
        )

    files = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        ours = "results.jsonl" in names
        for name in sorted(names):
            path = Path(root, name)
            if name.startswith(".") or (ours and name.endswith(_OURS)) or name.upper() == "DICOMDIR":
                continue
            if name.lower().endswith(ENDINGS) or content_kind(path) is not None:
                files.append(path)
    return files


def _with_unique_names(sources: list[Source]) -> list[Source]:
    names = [s.name for s in sources]
    for rename in (_with_ending, _with_folder, _with_both):
        shared = Counter(name.lower() for name in names)
        names = [rename(s) if shared[n.lower()] > 1 else n for s, n in zip(sources, names, strict=True)]
    seen: set[str] = set()
    for index, name in enumerate(names):
        number, unique = 1, name
        while unique.lower() in seen:
            number += 1
            unique = f"{name}_{number}"
        seen.add(unique.lower())
        names[index] = unique
    return [Source(s.paths, s.kind, n) for s, n in zip(sources, names, strict=True)]


def _with_ending(source: Source) -> str:
    first = source.paths[0]
    ending = first.name[len(stem(first)) :].replace(".", "_") if len(source.paths) == 1 else ""
    return source.name + ending


def _with_folder(source: Source) -> str:
    folder = source.paths[0].resolve().parent
    return f"{(folder if len(source.paths) == 1 else folder.parent).name}_{source.name}"


def _with_both(source: Source) -> str:
    return _with_folder(replace(source, name=_with_ending(source)))
