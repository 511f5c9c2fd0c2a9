# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How long models take, picture by picture in turns: whatever else the machine does meets all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Image, read_image, read_label
from monai_effsam.data.sets import Case
from monai_effsam.evaluation.models_answers import Opener
from monai_effsam.evaluation.robot import RobotUser
from monai_effsam.evaluation.robot_run import prompted_slices
from monai_effsam.inference.answers import Encoding
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.inference.throughput import encoder_rates
from monai_effsam.targets import own_target

__all__ = ["PICTURES", "rates_in_turns", "times_in_turns"]

PICTURES = 9
"""How many pictures are timed, after one that warms up."""


def times_in_turns(models: Mapping[str, Opener], cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Median times of each model on the same few pictures, a tight box each.

    All models are open at once. The order changes from picture to picture.

    Args:
        models: by name, functions that open them.
        cases: the first that hold a target are taken, of volumes one slice; sets should take turns.

    Returns:
        By name `encode_ms`, with the preparation of the picture, and `decode_ms`, with the way of the mask back to
        it; empty if no case holds a target.

    Raises:
        DataError: an image or label cannot be read.
    """
    segmenters = {name: opened() for name, opened in models.items()}
    laps: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    names, taken = list(models), 0
    for case in cases:
        image = read_image(case.image, modality=case.modality)
        label = read_label(case.mask, image)
        target = next((item for item in case.values.items() if (label == item[0]).any()), None)
        if target is None:
            continue
        for name in names:
            laps[name].append(_lap(segmenters[name], case, image, label == target[0], target[1]))
        names = names[1:] + names[:1]
        taken += 1
        if taken > PICTURES:
            break
    timed = {name: own[1:] or own for name, own in laps.items() if own}
    return {
        name: {
            "encode_ms": round(median(encode for encode, _ in own), 1),
            "decode_ms": round(median(decode for _, decode in own), 1),
        }
        for name, own in timed.items()
    }


def rates_in_turns(models: Mapping[str, Opener], batches: Sequence[int]) -> dict[str, dict[str, float]]:
    """Pictures a second of each model's encoder, see `encoder_rates`; all models are open at once.

    Args:
        models: by name, functions that open them.
        batches: pictures that are encoded at once.
    """
    return encoder_rates({name: opened().runtime for name, opened in models.items()}, batches)


def _lap(
    segmenter: Segmenter, case: Case, image: Image, drawn: NDArray[np.bool_], target: str
) -> tuple[float, float]:
    """Time of encoder and decoder on the first slice that holds the target [ms]."""
    index = int(np.flatnonzero(drawn.any((1, 2)))[0])
    only = np.zeros_like(drawn)
    only[index] = drawn[index]
    own = own_target(target, case.modality, segmenter.model.targets)
    encodings: dict[int, tuple[Encoding, float]] = {}
    user = RobotUser("box", 0)
    found = prompted_slices(case, case.image.name, image, only, own, segmenter, user, encodings)
    return encodings[index][1], found[index][0].ms
