# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What commands that read labelled images share: where they lie, and what their masks mean.

DATA is a folder of sets with targets.csv and splits.csv, a folder of image/mask pairs or a MONAI datalist; the last two
need --modality and --target.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monai_effsam.errors import DataError, UsageError
from monai_effsam.targets import MODALITIES, Target, check_modality, own_target

if TYPE_CHECKING:
    from monai_effsam.data.pictures import PictureFile
    from monai_effsam.data.sets import Case

__all__ = [
    "add_data_options",
    "add_label_options",
    "check_data",
    "named_targets",
    "read_cases",
    "table_of",
    "training_cases",
    "training_files",
]


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """DATA, --sets, --modality and --target."""
    parser.add_argument("data", type=Path, metavar="DATA", help="labelled images, see above")
    add_label_options(parser)


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """--sets, --modality and --target alone."""
    parser.add_argument("--sets", metavar="A,B", help="only these sets of DATA (default: all)")
    parser.add_argument("--modality", metavar="NAME", help=f"of pairs and datalists: {', '.join(MODALITIES)}")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="what mask value VALUE (default 1, 2, ...) means; repeat for several",
    )


def named_targets(args: argparse.Namespace) -> dict[int, str]:
    """--target options as mask value -> name.

    Raises:
        UsageError: a value that no mask can have, or one that is given twice.
        UnknownNameError: no such modality.
    """
    values: dict[int, str] = {}
    for place, text in enumerate(args.target, 1):
        name, _, value = text.partition("=")
        if value and not (value.isdecimal() and 0 < int(value) < 256):
            raise UsageError(
                f"--target {text}: mask value is '{value}', expected 1..255, as in --target polyp=1."
            )
        number = int(value or place)
        if number in values:
            raise UsageError(
                f"--target {text}: mask value {number} is already '{values[number]}'. Give another."
            )
        values[number] = name
    if args.modality:
        check_modality(args.modality)
    return values


def check_data(data: Path) -> None:
    """Refuse a path at which nothing is.

    Raises:
        UsageError: naming it.
    """
    if not data.exists():
        raise UsageError(f"{data}: no such file or folder. Give a folder of sets or pairs, or a datalist.")


def read_cases(args: argparse.Namespace, values: dict[int, str]) -> list[Case]:
    """The cases of every split of DATA.

    Args:
        args: with what `add_data_options` adds, and `seed`, by which pairs are split.
        values: from `named_targets`.

    Raises:
        UsageError: pairs or a datalist without modality or targets.
        UnknownNameError: a set that DATA does not have.
        DataError: a table, list or pair that cannot be used.
    """
    from monai_effsam.data.pairs import read_pairs
    from monai_effsam.data.sets import read_datalist, read_sets

    if (args.data / "targets.csv").is_file():
        names = None if args.sets is None else [name for name in args.sets.split(",") if name]
        return read_sets(args.data, names)
    if not (args.modality and values):
        raise UsageError(
            f"{args.data}: holds no targets.csv, so --modality and --target are needed, "
            "for example --modality endoscopy --target polyp."
        )
    if args.data.is_file():
        return read_datalist(args.data, args.modality, values)
    return read_pairs(args.data, args.modality, values, seed=args.seed)


def training_cases(args: argparse.Namespace, values: dict[int, str]) -> list[Case]:
    """The labelled cases of DATA to train on; none of a plain folder of pictures.

    Args:
        args: as of `read_cases`.
        values: from `named_targets`.

    Raises:
        DataError: as of `read_cases`, or no case of the split `train`.
    """
    if not (values or args.data.is_file() or (args.data / "targets.csv").is_file()):
        return []
    cases = [case for case in read_cases(args, values) if case.split == "train"]
    if not cases:
        raise DataError(f"{args.data}: no training cases, expected rows with split 'train'.")
    return cases


def training_files(args: argparse.Namespace, cases: Sequence[Case], size: int) -> list[PictureFile]:
    """The files of those cases, or of a plain folder, for `Pictures`; shrunk to little more than a size [px]."""
    from monai_effsam.data.pictures import labelled_files, unlabelled_files

    if not cases:
        return unlabelled_files(args.data, size, args.modality or "")
    return labelled_files(cases, size, table_of(cases))


def table_of(cases: Sequence[Case]) -> tuple[Target, ...]:
    """The targets that the cases label, modality by modality, known ones in the table's order."""
    table: list[Target] = []
    for modality in MODALITIES:
        names = {n: v for c in cases if c.modality == modality for v, n in c.values.items()}
        own = [own_target(name, modality) for name in names]
        for target in sorted(own, key=lambda t: t.value):
            taken = {t.value for t in table if t.name != target.name}
            value = target.value if target.value not in taken else 1 + max(taken)
            table.append(dataclasses.replace(target, value=value))
    return tuple(table)
