# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A searched network as a drawing: a row a stage, a box an operation, as high as its maps are wide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from monai_effsam.reports.svg import INK, PALETTE, SOFT, line, picture, text

__all__ = ["architecture_drawing"]

_FAMILIES = ("dwsep", "mbconv", "fused", "grouped", "dilated", "others")
"""First words of operations, in the order of their colours."""

_LEFT, _BOX, _GAP, _ROW = 178, 122, 10, 78  # px
_PALE = 0.22  # opacity of a box


def architecture_drawing(
    architecture: Mapping[str, Any], notes: Mapping[str, str] | None = None, *, alone: bool = False
) -> str:
    """An SVG of a network's stages, neck and decoder.

    Args:
        architecture: its JSON, as `Architecture.to_json` makes it.
        notes: what is written at the end of a row, such as its time; by `stage4`, `stage8`, ..., `neck`, `decoder`.
        alone: a file of its own rather than a part of a page.
    """
    notes, size, stride = notes or {}, int(architecture["size"]), int(architecture["stride"])
    stages: Sequence[Mapping[str, Any]] = architecture["stages"]
    longest = max(3, *(len(stage["ops"]) + 1 for stage in stages))
    end = _LEFT + longest * (_BOX + _GAP)
    parts: list[str] = []
    for row, stage in enumerate(stages):
        side, first = size // stage["stride"], f"{'entry' if row else 'stem'} 3x3"
        if entry := stage.get("entry"):  # of an inverted trunk
            first = f"to {entry}"
        names = (f"stage at 1/{stage['stride']}", f"{side} x {side} cells, C {stage['width']}")
        boxes = [(name, stage["width"]) for name in (first, *stage["ops"])]
        parts += _row(row, names, boxes, notes.get(f"stage{stage['stride']}", ""), end)
    grid, neck, decoder = size // stride, architecture["neck"], architecture["decoder"]
    used = len({stage["stride"] for stage in stages if stage["stride"] >= stride})
    fusing = [(f"sum of {used} maps", neck["width"]), (neck["kind"], decoder["width"])]
    names = ("neck", f"{grid} x {grid} cells, C {decoder['width']}")
    parts += _row(len(stages), names, fusing, notes.get("neck", ""), end)
    blocks = [(f"two-way, {decoder['mlp_dim']}", decoder["width"])] * decoder["depth"]
    names = ("decoder", f"masks {4 * grid} x {4 * grid}")
    parts += _row(len(stages) + 1, names, blocks, notes.get("decoder", ""), end)
    label = (
        f"A network of {len(stages)} stages for pictures of {size} px; embedding of {grid} x {grid} cells."
    )
    width = max(end, _LEFT + decoder["depth"] * (_BOX + _GAP)) + 90
    return picture(width, _ROW * (len(stages) + 2) + 12, parts, label, alone=alone)


def _row(
    row: int, names: tuple[str, str], boxes: Sequence[tuple[str, int]], note: str, end: float
) -> list[str]:
    """Marks of one row; boxes are (name, channels)."""
    middle = _ROW * (row + 0.5) + 6
    parts = [text(8, middle - 3, names[0], weight=600), text(8, middle + 15, names[1], colour=SOFT)]
    for i, (name, channels) in enumerate(boxes):
        height = min(_ROW - 14.0, 10 + 7 * math.log2(channels))
        x, colour = _LEFT + i * (_BOX + _GAP), _colour(name)
        parts.append(line(x - _GAP, middle, x, middle, SOFT, 2))
        parts.append(
            f'<rect x="{x}" y="{middle - height / 2:.1f}" width="{_BOX}" height="{height:.1f}" rx="4" fill="{colour}" '
            f'fill-opacity="{_PALE}" stroke="{colour}"><title>{escape(name)}, {channels} channels</title></rect>'
        )
        parts.append(text(x + _BOX / 2, middle + 5, name, anchor="middle", colour=INK))
    return [*parts, text(end + 4, middle + 5, note, colour=SOFT)] if note else parts


def _colour(name: str) -> str:
    """Of an operation's family; parts that every network has are grey."""
    if " " in name or name in ("separable", "dense"):
        return SOFT
    family = name.split("_")[0]
    return PALETTE[_FAMILIES.index(family) if family in _FAMILIES else len(_FAMILIES) - 1]
