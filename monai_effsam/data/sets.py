# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Labelled sets on disk -> cases: `splits.csv` folders with a `targets.csv`, plain image/mask folders, datalists.

Layout of a set: `<set>/images/`, `<set>/masks/` (the pixel value is the label) and `<set>/splits.csv` with the columns
image, mask, split, case, label_class; beside the sets `targets.csv` with set, modality, target, label_value.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_effsam.errors import DataError, UnknownNameError
from monai_effsam.targets import TARGETS, Target, check_modality

__all__ = ["Case", "known_targets", "read_datalist", "read_set", "read_sets", "read_table", "set_names"]


@dataclass(frozen=True)
class Case:
    """One labelled image or volume.

    Args:
        image: file of the image.
        mask: file of the mask.
        modality: name of its modality.
        values: mask value -> target name.
        group: patient or sequence; a group is on one side of a split only.
        split: `train`, `val` or another name.
        set_name: the set that it comes from.
        label_class: free class of the set (`benign`, `manual` ...), may be empty.
    """

    image: Path
    mask: Path
    modality: str
    values: dict[int, str] = field(hash=False)
    group: str
    split: str
    set_name: str
    label_class: str = ""


def set_names(root: Path) -> tuple[str, ...]:
    """Names of the sets below a folder that holds `targets.csv`, in its order.

    Raises:
        DataError: no `targets.csv`.
    """
    return tuple(
        dict.fromkeys(row["set"] for row in _rows(root / "targets.csv", ("set", "modality", "target")))
    )


def read_sets(root: Path, names: Sequence[str] | None = None, split: str | None = None) -> list[Case]:
    """Cases of several sets of one folder, in order.

    Args:
        root: folder with `targets.csv` and a folder a set.
        names: sets wanted; None for all.
        split: only this split; None for all.

    Raises:
        UnknownNameError: a set that `targets.csv` does not name.
        DataError: a table that is missing or lacks columns.
    """
    known = set_names(root)
    for name in names or ():
        if name not in known:
            raise UnknownNameError("set", name, known)
    return [case for name in names or known for case in read_set(root / name, split=split)]


def read_set(folder: Path, split: str | None = None) -> list[Case]:
    """Cases of one set; its targets stand in `targets.csv` beside or inside the folder.

    Raises:
        DataError: a table is missing, lacks columns or names no targets for the set.
    """
    table = folder / "targets.csv"
    if not table.is_file():
        table = folder.parent / "targets.csv"
    rows = _rows(table, ("set", "modality", "target", "label_value"))
    own = [row for row in rows if row["set"] == folder.name]
    if not own:
        raise DataError(f"{table}: no rows for set '{folder.name}', expected one a target. Add them.")
    modality = check_modality(own[0]["modality"])
    values = {_mask_value(row["label_value"], table): row["target"] for row in own}
    return [
        Case(
            folder / row["image"],
            folder / row["mask"],
            modality,
            values,
            row.get("case") or Path(row["image"]).stem,
            row["split"],
            folder.name,
            row.get("label_class") or "",
        )
        for row in _rows(folder / "splits.csv", ("image", "mask", "split"))
        if split is None or row["split"] == split
    ]


def read_datalist(path: Path, modality: str, values: dict[int, str], name: str | None = None) -> list[Case]:
    """Cases of a MONAI datalist: JSON with `training` and `validation` lists of {image, label[, case]}.

    Raises:
        DataError: not JSON, or an entry without image or label.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a readable JSON datalist ({error}).") from error
    cases = []
    lists = content if isinstance(content, dict) else {}
    for key, split in (("training", "train"), ("validation", "val")):
        for entry in lists.get(key, []):
            if not isinstance(entry, dict) or not all(
                isinstance(entry.get(k), str) for k in ("image", "label")
            ):
                raise DataError(
                    f"{path}: an entry of '{key}' lacks 'image' or 'label', expected the path of one file each. "
                    "Give both, relative to the datalist."
                )
            image, mask = path.parent / entry["image"], path.parent / entry["label"]
            group = str(entry.get("case", image.stem))
            cases.append(Case(image, mask, modality, values, group, split, name or path.stem))
    if not cases:
        raise DataError(f"{path}: holds no 'training' or 'validation' entries.")
    return cases


def known_targets(cases: Iterable[Case], table: Sequence[Target] = TARGETS) -> dict[str, tuple[bool, ...]]:
    """For each set, which targets of its modality its masks speak of, in table order.

    A set speaks of the targets that it labels. Of another set's targets it says "absent" if the two sets have no
    target in common (a breast scan holds no fetal head), and nothing if they share some (one abdomen labelled with
    fewer organs than another). Of targets that no set of the modality labels it says nothing.
    """
    own: dict[str, frozenset[str]] = {}
    modality: dict[str, str] = {}
    for case in cases:
        own.setdefault(case.set_name, frozenset(case.values.values()))
        modality.setdefault(case.set_name, case.modality)
    answer = {}
    for name, targets in own.items():
        beside = [theirs for other, theirs in own.items() if modality[other] == modality[name]]
        labelled = frozenset[str]().union(*beside)
        unsure = frozenset[str]().union(*(theirs - targets for theirs in beside if targets & theirs))
        row = [t.name for t in table if t.modality == modality[name]]
        answer[name] = tuple(t in targets or (t in labelled and t not in unsure) for t in row)
    return answer


def _mask_value(text: str, table: Path) -> int:
    if not (text.strip().isdecimal() and 0 < int(text) < 256):
        raise DataError(
            f"{table}: label_value is '{text}', expected a whole number 1..255 (0 is nothing). Mend it."
        )
    return int(text)


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV table, as spreadsheets write it (a byte order mark is no part of the first column's name).

    Raises:
        DataError: it cannot be read; the message names the columns expected.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read ({error}). Expected a CSV table with {', '.join(columns)}."
        ) from error


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    rows = read_table(path, columns)
    if rows and (absent := [c for c in columns if c not in rows[0]]):
        raise DataError(f"{path}: lacks the columns {', '.join(absent)}, expected {', '.join(columns)}.")
    if short := [i for i, row in enumerate(rows, 2) if any(row[c] is None for c in columns)]:
        raise DataError(f"{path}: line {short[0]} is too short, expected {', '.join(columns)}. Fill it in.")
    return rows
