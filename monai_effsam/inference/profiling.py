# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Where the time of a picture goes, a stage a line: reading, preparing, the network's halves, masks, writing."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_effsam.data.io import Source, read_image, write_mask, write_overlay
from monai_effsam.inference.clock import StageClock
from monai_effsam.inference.prompted import middle_box
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.specs import Prompts

__all__ = ["STAGES", "StageTimes", "medians", "profile_pictures"]

STAGES: tuple[str, ...] = ("read", "prepare", "encode", "decode", "place", "mask", "overlay")
"""Stages of a picture, in their order; `mask` and `overlay` encode and write the two files."""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Times of one round over one picture [ms].

    Args:
        source: the picture's path.
        ms: one entry for each of `STAGES`.
    """

    source: str
    ms: dict[str, float]


def profile_pictures(
    segmenter: Segmenter,
    sources: Sequence[Source],
    modality: str | None,
    *,
    prompts: Prompts | None = None,
    rounds: int = 5,
    on_round: Callable[[int, int], None] | None = None,
) -> list[StageTimes]:
    """Time every stage of `effsam segment`, one after the other; the first round warms up and is not counted.

    In a folder run reading, network and writing overlap, so a picture costs less wall time there than the sum here.

    Args:
        segmenter: the model in its runtime.
        sources: pictures or volumes, from `data.io.find_inputs`.
        modality: of all of them; a promptable model does without.
        prompts: given with each; a promptable model gets a box around the middle half of each picture otherwise.
        rounds: counted passes over all of them.
        on_round: called with (rounds done, rounds in all) after each.

    Raises:
        DataError: a file cannot be read.
        UnknownNameError: no such modality.
        UsageError: a prompt that cannot be used, or no modality though the model is self-prompting.
    """
    times: list[StageTimes] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            passed = [_profile(segmenter, source, modality, prompts, Path(folder)) for source in sources]
            times += passed if number else []
            if on_round:
                on_round(number + 1, rounds + 1)
    return times


def medians(times: Sequence[StageTimes]) -> dict[str, float]:
    """Median of each stage and of `total` over all pictures and rounds [ms]."""
    found = {stage: statistics.median(one.ms[stage] for one in times) for stage in STAGES}
    return {**found, "total": statistics.median(sum(one.ms.values()) for one in times)}


def _profile(
    segmenter: Segmenter, source: Source, modality: str | None, prompts: Prompts | None, folder: Path
) -> StageTimes:
    clock = StageClock()
    image = read_image(source, modality=modality)
    clock.lap("read")
    if segmenter.promptable and not prompts:
        prompts = middle_box(image.size)
    answer = segmenter.segment(image, modality, prompts=prompts)
    after = StageClock()
    write_mask(image, answer.mask, folder)
    after.lap("mask")
    colours = {target.value: target.colour for target in answer.targets}
    write_overlay(image, answer.mask, colours, folder)
    after.lap("overlay")
    return StageTimes(str(source.path), {**clock.ms, **answer.ms, **after.ms})
