# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How far an exported model is from the network it was exported from: measured after every export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from monai_effsam.checkpoints import LoadedCheckpoint, LoadedModel
from monai_effsam.inference.runtimes import PromptArrays, open_runtime
from monai_effsam.inference.runtimes.exported import prompt_tokens
from monai_effsam.inference.runtimes.prompted import PromptedGraphs
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.networks.nets import PromptableSam

__all__ = ["parity"]

Pairs = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


def parity(
    model: LoadedModel | LoadedCheckpoint, folder: Path, runtime: str, *, seed: int = 0
) -> dict[str, float]:
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
    if isinstance(model.network, PromptableSam):
        masks, quality = _prompted(model.network, PromptedGraphs(folder, runtime), random)
    else:
        masks, quality = _self_prompted(model, folder, runtime, random)  # type: ignore[arg-type]
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
    network: PromptableSam, exported: PromptedGraphs, random: np.random.RandomState
) -> tuple[Pairs, Pairs]:
    size = exported.spec.size
    image = random.randn(1, 3, size, size).astype(np.float32)
    frame = exported.spec.prompt_size or size
    box = np.array([[0.2, 0.3, 0.7, 0.8]], np.float32) * frame
    points, labels = np.array([[[0.4, 0.5], [0.1, 0.1]]], np.float32) * frame, np.array([[1, 0]])
    masks: Pairs = []
    quality: Pairs = []
    with torch.inference_mode():
        encoded = network.encode(torch.from_numpy(image))
        given = [
            (PromptArrays(None, None, box), {"boxes": torch.from_numpy(box)[None]}),
            (
                PromptArrays(points, labels, None),
                {"points": torch.from_numpy(points)[None], "labels": torch.from_numpy(labels)[None]},
            ),
        ]
        embedding = exported.encode(image)
        for prompt, tensors in given:
            tokens, kinds = prompt_tokens(prompt, 1)
            logits, estimate = exported.decode(embedding, tokens[:, None], kinds[:, None])
            for multimask, chosen in ((False, slice(0, 1)), (True, slice(1, None))):
                found = network.decode(encoded, **tensors, multimask=multimask)
                masks.append((found.mask_logits.numpy(), logits[:, :, chosen]))
                quality.append((found.quality.numpy(), estimate[:, :, chosen]))
    return masks, quality
