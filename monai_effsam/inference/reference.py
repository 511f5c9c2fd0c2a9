# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A model's network timed against LiteMedSAM's image encoder: same run, same runtime, same threads, turn by turn.

Absolute times drift with the machine; a ratio taken turn by turn does not. The reference has random weights, which
change nothing about its time, and 37.5 GMACs at 256 px, as much as MobileSAM at 1024.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_effsam.inference.export import trace_graph, write_openvino
from monai_effsam.inference.export.promptable_sam import PlainEncoderGraph
from monai_effsam.inference.prompted import middle_box
from monai_effsam.inference.runtimes import PromptArrays
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.networks.encoders import build_encoder
from monai_effsam.specs import spec_of

__all__ = ["compare_with_lite_medsam"]

SIZE = 256
"""Side of the image that LiteMedSAM's encoder takes [px]."""


def compare_with_lite_medsam(
    segmenter: Segmenter, modality: str | None, *, rounds: int = 5
) -> dict[str, float]:
    """Median times of the segmenter's network (encode and decode) and of LiteMedSAM's encoder alone.

    A promptable network gets a box, others no prompt. Both get one image in memory. A turn of each warms up and is
    not counted.

    Args:
        segmenter: the model in its runtime.
        modality: whose size and targets are used; a promptable model does without.
        rounds: counted turns.

    Returns:
        `network_ms`, `reference_ms` and `ratio`, the median over turns of reference over network.

    Raises:
        UnknownNameError: no such modality.
    """
    runtime = segmenter.runtime
    number = segmenter.modality_index(modality)
    spec = spec_of(segmenter.model.specs, modality)
    size = spec.size
    prompt = (
        PromptArrays.of(middle_box((size, size)), spec.place((size, size))) if segmenter.promptable else None
    )
    image = np.random.RandomState(0).randn(1, 3, size, size).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        reference = _reference(runtime.name, runtime.device, runtime.threads, Path(folder))
        turns = []
        for _ in range(rounds + 1):
            ours = _timed(lambda: runtime.decode(runtime.encode(image, number), number, prompt))
            turns.append((ours, _timed(reference)))
    ours_ms, reference_ms = zip(*turns[1:], strict=True)
    return {
        "network_ms": statistics.median(ours_ms),
        "reference_ms": statistics.median(reference_ms),
        "ratio": statistics.median(theirs / ours for ours, theirs in turns[1:]),
    }


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def _reference(runtime: str, device: str, threads: int, folder: Path) -> Callable[[], Any]:
    """One pass of LiteMedSAM's encoder in a runtime."""
    encoder = build_encoder("tiny_vit", modalities=0, stem_stride=1).eval()
    image, modality = torch.randn(1, 3, SIZE, SIZE), torch.zeros(1, dtype=torch.int64)
    if runtime == "torch":
        encoder.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        image, modality = image.to(device), modality.to(device)

        def run() -> Any:
            with torch.inference_mode():
                return encoder(image, modality).embedding.sum().item()  # waits for the device

        return run
    file = folder / "reference.onnx"
    trace_graph(PlainEncoderGraph(encoder), (image,), file, ["image"], ["embedding"])
    if runtime == "openvino":
        from monai_effsam.inference.runtimes.openvino_runtime import OpenVinoGraph

        graph = OpenVinoGraph(write_openvino(file)[0], threads)
        return lambda: graph({"image": image.numpy()})
    from monai_effsam.inference.runtimes.onnx_runtime import onnx_session

    session = onnx_session(file, device, threads)
    return lambda: session.run(None, {"image": image.numpy()})
