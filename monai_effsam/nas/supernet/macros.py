# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Parts of a search space that one supernet can hold: what changes the frame is fixed, the rest is left to choose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import Any

from monai_effsam.errors import UsageError
from monai_effsam.nas.space.search_space import SearchSpace

__all__ = ["FRAME", "frames", "narrowed"]

FRAME: tuple[str, ...] = ("stem", "stride", "size", "decoder.width", "decoder.depth", "decoder.mlp_dim")
"""Choices that no supernet relaxes: the outer loop of a search goes over them (docs/adr/0012)."""

_FIELDS = {
    "stem": "stems",
    "stride": "strides",
    "size": "sizes",
    "decoder.width": "decoder_widths",
    "decoder.depth": "decoder_depths",
    "decoder.mlp_dim": "mlp_dims",
}


def narrowed(space: SearchSpace, **values: int | None) -> SearchSpace:
    """A space with some choices of the frame fixed.

    Args:
        space: to begin from.
        values: `stem`, `stride`, `size`, `decoder_width`, `decoder_depth`, `mlp_dim`; None leaves a choice open.

    Raises:
        UsageError: a value that the space does not have; the message lists those that it has.
    """
    names = {"decoder_width": "decoder.width", "decoder_depth": "decoder.depth", "mlp_dim": "decoder.mlp_dim"}
    for key, value in values.items():
        if value is None:
            continue
        field = _FIELDS[names.get(key, key)]
        known = getattr(space, field)
        if value not in known:
            raise UsageError(
                f"search space {space.name}: {key.replace('_', ' ')} is {value}, expected one of "
                f"{', '.join(map(str, known))}. Choose one of these, or another space."
            )
        space = _fixed(space, field, value)
    return space


def _fixed(space: SearchSpace, field: str, value: int) -> SearchSpace:
    if field != "stems":
        fixed: dict[str, Any] = {field: (value,)}
        return replace(space, **fixed)
    stages = tuple(stage for stage in space.stages if stage.stride >= value)
    strides = tuple(s for s in space.strides if s >= value)
    return replace(space, stems=(value,), stages=stages, strides=strides)


def frames(space: SearchSpace) -> list[SearchSpace]:
    """Every part of a space in which the choices of `FRAME` have one option each."""
    found = []
    for stem in space.stems:
        part = _fixed(space, "stems", stem)
        fields = [field for field in _FIELDS.values() if field != "stems"]
        options = product(*(getattr(part, field) for field in fields))
        found += [_all_fixed(part, zip(fields, values, strict=True)) for values in options]
    return found


def _all_fixed(space: SearchSpace, pairs: Iterable[tuple[str, int]]) -> SearchSpace:
    for field, value in pairs:
        space = _fixed(space, field, value)
    return space
