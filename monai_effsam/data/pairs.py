# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One folder of a user's own images and masks -> cases, with a split that keeps patients and sequences whole.

Layouts: `images/` beside `masks/`, a mask named as its image or with `_mask` behind the name; or one folder of
`NAME.png` and `NAME_mask.png`. Subfolders count as part of the name. Any format that `read_image` reads will do.

Which images belong together is read off their names (`group_of`), or off a `groups.csv` in the folder with the
columns image and group, where the names say nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from monai_effsam.data.io.sniff import ENDINGS, stem
from monai_effsam.data.sets import Case, read_table
from monai_effsam.errors import DataError, UsageError
from monai_effsam.targets import check_modality

__all__ = ["group_of", "read_pairs", "split_groups"]

_MASK = "_mask"
_OVERLAY = "_overlay"
_COUNTER = re.compile(r"[_\- .](?:frame|slice|page|view|image|img|f|s|t|z)[_\- ]?\d+$", re.IGNORECASE)
_NUMBERED = re.compile(r"(.*\d.*)[_\- .]\d+")


def read_pairs(
    folder: Path, modality: str, values: Mapping[int, str], *, seed: int = 0, val_share: float = 0.2
) -> list[Case]:
    """Cases of a folder of image/mask pairs, sorted by name.

    Args:
        folder: see the module's text for its layouts.
        modality: of all its images.
        values: mask value -> target name.
        seed: of the split.
        val_share: share of the groups that validate.

    Raises:
        UsageError: unknown modality, no values, or a value outside 1..255.
        DataError: no images, an image without a mask, a mask without an image, two files of one name, or a
            `groups.csv` that does not fit.
    """
    check_modality(modality)
    if not values or min(values) < 1 or max(values) > 255:
        raise UsageError(
            f"{folder}: mask values with a target are {sorted(values)}, expected some of 1..255 (0 is nothing). "
            "Name them, as in --target polyp=255."
        )
    images, masks = _find(folder)
    pairs = _match(folder, images, masks)
    listed = _listed_groups(folder, pairs)
    groups = {key: listed[key] if listed else group_of(key) for key in pairs}
    splits = split_groups(groups.values(), seed=seed, val_share=val_share)
    name = folder.resolve().name
    return [
        Case(image, mask, modality, dict(values), groups[key], splits[groups[key]], name)
        for key, (image, mask) in pairs.items()
    ]


def group_of(name: str) -> str:
    """What is left of a file's name without its counters: the patient or sequence it belongs to.

    Taken off, as often as it occurs: a number with the word frame, slice, page, view, image, img, f, s, t or z
    before it (`p3_frame01_s05` -> `p3`); then once a bare number, if a number is left (`abd_001_100` -> `abd_001`,
    but `img_100` stays, since else all would be one group).
    """
    counted = name
    while (shorter := _COUNTER.sub("", counted)) != counted:
        counted = shorter
    if counted != name:
        return counted
    head, slash, last = name.rpartition("/")
    found = _NUMBERED.fullmatch(last)
    return head + slash + found[1] if found else name


def split_groups(groups: Iterable[str], *, seed: int = 0, val_share: float = 0.2) -> dict[str, str]:
    """`train` or `val` for each group, by a hash of seed and name: more data leaves the others where they are.

    Of two groups or more at least one trains and, for a share above 0, at least one validates.
    """
    drawn = {group: _draw(seed, group) for group in groups}
    val = {group for group, number in drawn.items() if number < val_share}
    order = sorted(drawn, key=lambda group: drawn[group])
    if val_share > 0 and not val and len(order) > 1:
        val = {order[0]}
    if len(val) == len(order):
        val.discard(order[-1])
    return {group: "val" if group in val else "train" for group in drawn}


def _draw(seed: int, group: str) -> float:
    digest = hashlib.sha256(f"{seed}/{group}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def _find(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks by name without ending."""
    if (folder / "images").is_dir():
        own = folder / "masks"
        return _by_name(folder / "images"), {
            k.removesuffix(_MASK): path for k, path in _by_name(own, may_end=_MASK).items()
        }
    files = _by_name(folder)
    masks = {k.removesuffix(_MASK): path for k, path in files.items() if k.endswith(_MASK)}
    images = {k: path for k, path in files.items() if not k.endswith((_MASK, _OVERLAY))}
    return images, masks


def _by_name(folder: Path, may_end: str = "") -> dict[str, Path]:
    found: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if not path.name.lower().endswith(ENDINGS) or any(part.startswith(".") for part in inner.parts):
            continue
        key = (inner.parent / stem(path)).as_posix()
        other = seen.setdefault(key.removesuffix(may_end) if may_end else key, path)
        if other is not path:
            raise DataError(
                f"{path}: has the same name as {other.name}, expected one file a name. Rename one."
            )
        found[key] = path
    return found


def _match(
    folder: Path, images: Mapping[str, Path], masks: Mapping[str, Path]
) -> dict[str, tuple[Path, Path]]:
    if not images:
        raise DataError(
            f"{folder}: holds no images, expected images/ and masks/, or NAME.png with NAME_mask.png. "
            f"Readable are {' '.join(ENDINGS)}."
        )
    for kind, others, lacking in (
        ("image", "mask", [images[k] for k in images if k not in masks]),
        ("mask", "image", [masks[k] for k in masks if k not in images]),
    ):
        if lacking:
            raise DataError(
                f"{folder}: {len(lacking)} of {len(images if kind == 'image' else masks)} {kind}s have no {others} "
                f"({_some(lacking)}), expected pairs of one name. Add them (an empty mask where nothing is), or move "
                "them away."
            )
    return {key: (image, masks[key]) for key, image in images.items()}


def _listed_groups(folder: Path, pairs: Mapping[str, tuple[Path, Path]]) -> dict[str, str]:
    """Group of each image by `groups.csv`; empty without the file."""
    table = folder / "groups.csv"
    if not table.is_file():
        return {}
    groups = {}
    for row in read_table(table, ("image", "group")):
        name, group = row.get("image"), row.get("group")
        if not name or not group:
            raise DataError(f"{table}: a row lacks image or group, expected both. Fill it in.")
        inner = Path(name)
        inner = inner.relative_to("images") if inner.parts[0] == "images" else inner
        groups[(inner.parent / stem(inner)).as_posix()] = group
    lacking = [image for key, (image, _) in pairs.items() if key not in groups]
    if lacking:
        raise DataError(
            f"{table}: names no group for {len(lacking)} of {len(pairs)} images ({_some(lacking)}). Add their rows."
        )
    return groups


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(p.name for p in paths[:3]) + (", ..." if len(paths) > 3 else "")
