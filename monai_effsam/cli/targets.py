# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Print what can be outlined: modality, target, value in a mask, colour and SNOMED CT code."""

from __future__ import annotations

import argparse

from monai_effsam.cli.common import add_options, print_json
from monai_effsam.targets import MODALITIES, TARGETS, Target, targets_of

__all__ = ["add_arguments", "run"]

_TITLES = ("modality", "target", "value", "colour", "code", "meaning")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `effsam targets`."""
    parser.add_argument("--modality", metavar="NAME", help=f"only this one of {', '.join(MODALITIES)}")
    add_options(parser, "json")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    targets = targets_of(args.modality) if args.modality else TARGETS
    if args.json:
        print_json([target.to_json() for target in targets])
        return 0
    rows = [_TITLES, *map(_row, targets)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(target: Target) -> tuple[str, ...]:
    """The cells of one target; the colour as on a web page."""
    red, green, blue = target.colour
    colour = f"#{red:02x}{green:02x}{blue:02x}"
    return target.modality, target.name, str(target.value), colour, target.code, target.meaning
