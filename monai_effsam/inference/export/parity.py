# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How far an exported model is from the network it was exported from: measured after every export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_effsam.checkpoints import LoadedModel
from monai_effsam.inference.runtimes import PromptArrays, open_runtime
from monai_effsam.inference.runtimes.exported import read_exported
from monai_effsam.inference.runtimes.prompted import PromptedGraphs
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.specs import spec_of

__all__ = ["parity"]

Pairs = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


def parity(model: LoadedModel, folder: Path, runtime: str, *, seed: int = 0) -> dict[str, float]:
    """Largest differences between torch and an exported model on pictures of noise.

    A self-prompting model answers for every modality without a prompt and with a box, a promptable one a box and
    points.

    Args:
        model: that was exported.
        folder: of `export_model`.
        runtime: one of `EXPORTS`.
        seed: of the noise.

    Returns:
        Largest absolute difference of `mask_logits` and of `quality` (with presence), and the `largest_logit`.
    """
    random = np.random.RandomState(seed)
    answers = _prompted if model.promptable else _self_prompted
    masks, quality = answers(model, folder, runtime, random)
    return {
        "mask_logits": max(float(np.abs(one - two).max()) for one, two in masks),
        "quality": max(float(np.abs(one - two).max()) for one, two in quality),
        "largest_logit": max(float(np.abs(one).max()) for one, _ in masks),
    }


def _self_prompted(
    model: LoadedModel, folder: Path, runtime: str, random: np.random.RandomState
) -> tuple[Pairs, Pairs]:
    reference, exported = TorchRuntime(model), open_runtime(folder, runtime)
    masks: Pairs = []
    estimates: Pairs = []
    for number, name in enumerate(dict.fromkeys(target.modality for target in model.targets)):
        size = model.specs[name].size
        image = random.randn(1, 3, size, size).astype(np.float32)
        box = np.array([[size * 0.2, size * 0.3, size * 0.7, size * 0.8]], np.float32)
        encoded = [one.encode(image, number) for one in (reference, exported)]
        for prompt in (None, PromptArrays(None, None, box)):
            one, two = (
                reference.decode(encoded[0], number, prompt),
                exported.decode(encoded[1], number, prompt),
            )
            masks.append((one.mask_logits, two.mask_logits))
            estimates += [(one.quality, two.quality), (one.presence, two.presence)]
    return masks, estimates


def _prompted(
    model: LoadedModel, folder: Path, runtime: str, random: np.random.RandomState
) -> tuple[Pairs, Pairs]:
    reference, exported = TorchRuntime(model), PromptedGraphs(read_exported(folder), runtime)
    spec = spec_of(model.specs)
    image = random.randn(1, 3, spec.size, spec.size).astype(np.float32)
    frame = spec.prompt_size or spec.size
    box = np.array([[0.2, 0.3, 0.7, 0.8]], np.float32) * frame
    points, labels = np.array([[[0.4, 0.5], [0.1, 0.1]]], np.float32) * frame, np.array([[1, 0]])
    encoded = [one.encode(image, 0) for one in (reference, exported)]
    masks: Pairs = []
    quality: Pairs = []
    for prompt in (PromptArrays(None, None, box), PromptArrays(points, labels, None)):
        for multimask in (False, True):
            one = reference.outlines(encoded[0], prompt, multimask=multimask)
            two = exported.outlines(encoded[1], prompt, multimask=multimask)
            masks.append((one.mask_logits, two.mask_logits))
            quality.append((one.quality, two.quality))
    return masks, quality
