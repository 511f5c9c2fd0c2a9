# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One picture in front of one model: every target that it holds, prompted in every way asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from monai_effsam.data.io import read_image, read_label
from monai_effsam.data.sets import Case
from monai_effsam.evaluation.models_rows import ModelRun, PromptedScore
from monai_effsam.evaluation.robot import RobotUser
from monai_effsam.evaluation.robot_run import prompted_slices, stacked, trivial_answer
from monai_effsam.evaluation.trivial import ConstantMask
from monai_effsam.inference.answers import Encoding
from monai_effsam.inference.runtimes.exported import sha256_of
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.metrics.complexity import count_parameters
from monai_effsam.metrics.overlap import dice_score, iou_score
from monai_effsam.targets import own_target

__all__ = ["ModelFound", "Opener", "answer_picture", "look_at"]

Opener = Callable[[], Segmenter]


class ModelFound(NamedTuple):
    """What the table says of a model besides its scores.

    Attributes:
        run: the model as it runs.
        parameters: of the network; None where neither runtime nor manifest tells.
    """

    run: ModelRun
    parameters: int | None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {**self.run._asdict(), "parameters": self.parameters}


def look_at(name: str, segmenter: Segmenter) -> ModelFound:
    """What an open model is.

    Args:
        name: in the table.
        segmenter: the model.
    """
    runtime, model = segmenter.runtime, segmenter.model
    sha256 = str(model.card.get("sha256") or sha256_of(model.path))
    network = getattr(model, "network", None)
    family = str(model.card.get("family") or "")
    runs_in = f"{runtime.name} int8" if "int8" in model.card else runtime.name  # of the same weights
    run = ModelRun(name, sha256, family, runs_in, segmenter.device, runtime.threads)
    told = model.card.get("cost", {}).get("parameters_m")  # of an exported model
    counted = None if told is None else round(told * 1e6)
    return ModelFound(run, counted if network is None else count_parameters(network))


def answer_picture(
    case: Case,
    name: str,
    segmenter: Opener,
    run: ModelRun,
    users: Mapping[str, RobotUser],
    constants: Callable[[], Mapping[str, ConstantMask]],
) -> list[PromptedScore]:
    """Every target of a picture, prompted by every user; the picture is encoded once.

    Args:
        case: image and label; of a volume each slice that holds the target is prompted.
        name: of the image, in tables.
        segmenter: gives the model; not called if the label is empty.
        run: what the model is.
        users: by the name of the prompt; of each, the first round.
        constants: gives the set's constant masks; called for users without a box only.

    Raises:
        DataError: image or label cannot be read, or differ in size.
    """
    image = read_image(case.image, modality=case.modality)
    label = read_label(case.mask, image)
    encodings: dict[int, tuple[Encoding, float]] = {}
    rows = []
    for value, target in case.values.items():
        drawn = label == value
        if not drawn.any():
            continue
        for prompt, user in users.items():
            model = segmenter()
            own = own_target(target, case.modality, model.model.targets)
            found = prompted_slices(case, name, image, drawn, own, model, user, encodings)
            answers = [rounds[0] for rounds in found.values()]
            mask = stacked(answers, found, drawn)
            masks = {} if user.start == "box" else constants()
            trivial = trivial_answer(case, name, drawn, target, user, masks)
            rows.append(
                PromptedScore(
                    *run,
                    prompt=prompt,
                    seed=user.seed,
                    set_name=case.set_name,
                    image=name,
                    group=case.group,
                    target=target,
                    slices=len(image),
                    label_px=int(drawn.sum()),
                    mask_px=int(mask.sum()),
                    dice=round(dice_score(mask, drawn), 6),
                    trivial=math.nan if trivial is None else round(dice_score(trivial, drawn), 6),
                    iou=round(iou_score(mask, drawn), 6),
                    quality=round(float(np.mean([answer.quality for answer in answers])), 6),
                    encode_ms=round(sum(encodings[index][1] for index in found), 2),
                    decode_ms=round(sum(answer.ms for answer in answers), 2),
                )
            )
    return rows
