# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a search chooses: names of choices, what a stage may be, and which option of each an architecture has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from monai_effsam.networks.encoders.architecture import CONV_ENTRY, Architecture

__all__ = ["SearchChoice", "StageChoices", "architecture_values", "stage_labels"]


class SearchChoice(NamedTuple):
    """One entry of the vector that stands for an architecture.

    Attributes:
        name: such as `stage8.width` or `stage8.op0`.
        options: what it may be, in the order of their indices.
    """

    name: str
    options: tuple[int | str, ...]


@dataclass(frozen=True)
class StageChoices:
    """What a stage may be.

    Args:
        stride: image pixels a step of its map.
        widths: C of its map.
        slots: most operations in a row; each may be left out.
        ops: operations a slot may hold, without `skip`, which is always there.
        entry: what leads to it, see `StageShape`.
    """

    stride: int
    widths: tuple[int, ...]
    slots: int
    ops: tuple[str, ...]
    entry: str = CONV_ENTRY


def stage_labels(strides: Sequence[int]) -> tuple[str, ...]:
    """Names of stages: `stage16`, and `stage16b` for a second one of that stride."""
    earlier = [strides[:i].count(stride) for i, stride in enumerate(strides)]
    return tuple(f"stage{s}{'abcdefgh'[n] if n else ''}" for s, n in zip(strides, earlier, strict=True))


def architecture_values(architecture: Architecture) -> dict[str, int | str]:
    """Option of every choice that an architecture tells; what it does not is a skip."""
    values: dict[str, int | str] = {"stem": architecture.stages[0].stride}
    labels = stage_labels([stage.stride for stage in architecture.stages])
    for label, stage in zip(labels, architecture.stages, strict=True):
        values[f"{label}.width"] = stage.width
        values |= {f"{label}.op{i}": op for i, op in enumerate(stage.ops)}
    values |= {"neck.width": architecture.neck.width, "neck.kind": architecture.neck.kind}
    values |= {"stride": architecture.stride, "size": architecture.size}
    decoder = architecture.decoder
    values |= {"decoder.width": decoder.width, "decoder.depth": decoder.depth}
    values["decoder.mlp_dim"] = decoder.mlp_dim
    return values
