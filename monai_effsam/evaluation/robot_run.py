# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Labelled files through a simulated user: one target at a time, a score a round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Image, find_inputs, read_image, read_label, write_mask
from monai_effsam.data.sets import Case
from monai_effsam.evaluation.robot import RobotAnswer, RobotUser, answers_of, jittered_box
from monai_effsam.evaluation.scores import Answer, FileScore, score_answer
from monai_effsam.evaluation.trivial import ConstantMask, ellipse_in
from monai_effsam.inference.answers import Encoding
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.targets import Target, own_target

__all__ = ["prompted_slices", "robot_scores", "stacked", "trivial_answer"]


def robot_scores(
    cases: Mapping[str, Case],
    segmenter: Segmenter,
    out: Path,
    user: RobotUser,
    constants: Mapping[str, ConstantMask],
    *,
    tolerance: float = 2.0,
    on_file: Callable[[int], None] | None = None,
) -> Iterator[FileScore]:
    """Scores of one set, for each target that a label holds and each round of the user.

    A picture is encoded once. Of a volume every slice that holds the target is prompted on its own, the others stay
    empty, and the score is that of the whole volume: an upper bound, as nobody prompts every slice. Beside each score
    stands the ellipse in the very box that was prompted, or, without a box, the constant mask. The masks of the last
    round are written to `out/SET`.

    Args:
        cases: by the name of the image in tables.
        segmenter: the model.
        out: output folder.
        user: how it prompts.
        constants: the set's constant masks, by target.
        tolerance: of surface Dice [mm or px].
        on_file: called with the number of files done.

    Raises:
        DataError: an image or a label cannot be read, or a mask not be written.
    """
    sources = {s.path.resolve(): s for s in find_inputs([case.image for case in cases.values()])}
    for done, (name, case) in enumerate(cases.items(), 1):
        start = time.perf_counter()
        image = read_image(sources[case.image.resolve()], modality=case.modality)
        read_ms = (time.perf_counter() - start) * 1000
        label = read_label(case.mask, image)
        encodings: dict[int, tuple[Encoding, float]] = {}
        for value, title in case.values.items():
            # what a promptable model outlines need not stand in its table
            target = own_target(title, case.modality, segmenter.model.targets)
            drawn = label == value
            if not drawn.any():
                continue
            found = prompted_slices(case, name, image, drawn, target, segmenter, user, encodings)
            masks = [
                stacked([row[i] for row in found.values()], found, drawn) for i in range(len(user.rounds))
            ]
            written = _written(image, masks[-1], target.value, target.name, out / case.set_name)
            trivial = trivial_answer(case, name, drawn, target.name, user, constants)
            encode_ms = sum(encodings[index][1] for index in found)
            for number, prompt in enumerate(user.rounds):
                rows = [row[number] for row in found.values()]
                answer = Answer(
                    mask=masks[number],
                    presence=max(row.presence for row in rows),
                    quality=float(np.mean([row.quality for row in rows])),
                    stages={"read": read_ms, "encode": encode_ms, "decode": sum(row.ms for row in rows)},
                    prompt=prompt,
                    trivial=trivial,
                    file=f"{case.set_name}/{written.name}",
                )
                yield score_answer(case, name, image, target.name, drawn, answer, tolerance)
        if on_file:
            on_file(done)


def prompted_slices(
    case: Case,
    name: str,
    image: Image,
    drawn: NDArray[np.bool_],
    target: Target,
    segmenter: Segmenter,
    user: RobotUser,
    encodings: dict[int, tuple[Encoding, float]],
) -> dict[int, list[RobotAnswer]]:
    """The answers of each slice that holds the target.

    Args:
        case: what set the image belongs to.
        name: of the image, in tables.
        image: as read.
        drawn: (N, H, W) bool, the label of the target.
        target: the target itself.
        segmenter: the model.
        user: how it prompts.
        encodings: of slices, with the time that each took [ms]; those that are missing are made and kept here.

    Returns:
        By slice, an answer a round.
    """
    found = {}
    asked = target.name if target in segmenter.model.targets else None
    for index in np.flatnonzero(drawn.any((1, 2))).tolist():
        if index not in encodings:
            start = time.perf_counter()
            encoding = segmenter.encode(image, index, case.modality)
            encodings[index] = encoding, (time.perf_counter() - start) * 1000
        instance = _instance(case, name, target.name, index)
        found[index] = list(answers_of(segmenter, encodings[index][0], asked, drawn[index], user, instance))
    return found


def _instance(case: Case, name: str, target: str, index: int) -> str:
    """What the straying of a prompt depends on; nothing of the model is in it."""
    return f"{case.set_name}/{name}/{target}/{index}"


def stacked(
    rows: Sequence[RobotAnswer], indices: Mapping[int, object], drawn: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """The answers `rows` to the slices `indices` as one mask, (N, H, W) like the label; other slices stay empty."""
    mask = np.zeros_like(drawn)
    for index, row in zip(indices, rows, strict=True):
        mask[index] = row.mask
    return mask


def _written(image: Image, mask: NDArray[np.bool_], value: int, target: str, folder: Path) -> Path:
    own = replace(image, name=f"{image.name}_{target}")
    return write_mask(own, mask.astype(np.uint8) * np.uint8(value), folder)


def trivial_answer(
    case: Case,
    name: str,
    drawn: NDArray[np.bool_],
    target: str,
    user: RobotUser,
    constants: Mapping[str, ConstantMask],
) -> NDArray[np.bool_] | None:
    """The answer that needs no look at the picture, from what the user prompted first."""
    if user.start == "points":
        return constants[target].like(drawn.shape) if target in constants else None
    mask = np.zeros_like(drawn)
    for index in np.flatnonzero(drawn.any((1, 2))).tolist():
        random = user.random(_instance(case, name, target, index))
        mask[index] = ellipse_in(jittered_box(drawn[index], user, random), drawn[index].shape)
    return mask
