# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A model's network timed against LiteMedSAM's: same run, same runtime, same threads, turn by turn.

Absolute times drift with the machine; a ratio taken turn by turn does not. The reference has random weights, which
change nothing about its time, and its encoder 37.5 GMACs at 256 px, as much as MobileSAM's at 1024.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from monai_effsam.checkpoints import FAMILIES, LoadedModel
from monai_effsam.inference.export import export_model
from monai_effsam.inference.prompted import middle_box
from monai_effsam.inference.runtimes import PromptArrays, Runtime, open_runtime
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.networks.nets import PromptableSam
from monai_effsam.specs import ANY_MODALITY, ImageSpec, spec_of
from monai_effsam.targets import TARGETS

__all__ = ["compare_with_lite_medsam"]


def compare_with_lite_medsam(
    segmenter: Segmenter, modality: str | None, *, rounds: int = 5
) -> dict[str, float]:
    """Median times of the segmenter's network and of LiteMedSAM's, both halves of each.

    LiteMedSAM and promptable networks get a box, others no prompt. Both get one image in memory. A turn of each warms
    up and is not counted.

    Args:
        segmenter: the model in its runtime.
        modality: whose size and targets are used; a promptable model does without.
        rounds: counted turns.

    Returns:
        `encode_ms`, `decode_ms`, `reference_encode_ms`, `reference_decode_ms`; and medians over turns of how many times
        faster ours is: `encoder_ratio`, `whole_ratio` (encode and decode of both), and `ratio`, our encode and decode
        against its encoder alone, for a model that needs no prompt.

    Raises:
        UnknownNameError: no such modality.
    """
    number = segmenter.modality_index(modality)
    spec = spec_of(segmenter.model.specs, modality)
    prompted = segmenter.promptable
    with tempfile.TemporaryDirectory() as folder:
        reference = _reference(segmenter.runtime, Path(folder))
        lite = FAMILIES["lite_medsam"].spec
        turns = [
            (*_halves(segmenter.runtime, spec, number, prompted), *_halves(reference, lite, 0, True))
            for _ in range(rounds + 1)
        ][1:]
    names = ("encode_ms", "decode_ms", "reference_encode_ms", "reference_decode_ms")
    times = {
        name: statistics.median(column) for name, column in zip(names, zip(*turns, strict=True), strict=True)
    }
    return {
        **times,
        "encoder_ratio": statistics.median(theirs / ours for ours, _, theirs, _ in turns),
        "whole_ratio": statistics.median((c + d) / (a + b) for a, b, c, d in turns),
        "ratio": statistics.median(c / (a + b) for a, b, c, _ in turns),
    }


def _halves(runtime: Runtime, spec: ImageSpec, modality: int, prompted: bool) -> tuple[float, float]:
    """Times of encode and decode of one image [ms]; masks come back as arrays, so a GPU has finished."""
    size = spec.size
    image = np.random.RandomState(0).randn(1, 3, size, size).astype(np.float32)
    prompt = PromptArrays.of(middle_box((size, size)), spec.place((size, size))) if prompted else None
    start = time.perf_counter()
    encoded: Any = runtime.encode(image, modality)
    between = time.perf_counter()
    runtime.decode(encoded, modality, prompt)
    return (between - start) * 1000, (time.perf_counter() - between) * 1000


def _reference(runtime: Runtime, folder: Path) -> Runtime:
    """LiteMedSAM with random weights where the other network runs."""
    network = PromptableSam({"name": "tiny_vit", "stem_stride": 1}).eval()
    specs = {ANY_MODALITY: FAMILIES["lite_medsam"].spec}
    model = LoadedModel(network, specs, TARGETS, {"name": "lite_medsam"}, folder / "random.pth")
    if runtime.name == "torch":
        return TorchRuntime(model, runtime.device, threads=runtime.threads)
    exported = export_model(model, folder / "lite", (runtime.name,))
    return open_runtime(exported, runtime.name, runtime.device, runtime.threads)
