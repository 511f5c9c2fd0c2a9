# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How many pictures a second an encoder takes, by how many it gets at once: what a server or a folder run asks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from monai_effsam.inference.runtimes import Runtime
from monai_effsam.inference.runtimes.openvino_runtime import OpenVinoRuntime
from monai_effsam.inference.runtimes.prompted import PromptedGraphs

__all__ = ["encoder_rates"]


def encoder_rates(
    runtimes: Mapping[str, Runtime], batches: Sequence[int] = (1, 16), *, rounds: int = 5
) -> dict[str, dict[str, float]]:
    """Median pictures a second of the encoders alone, in turns: pictures lie in memory as the networks want them.

    A batch goes through the network in one pass, also where a runtime takes pictures one by one otherwise. The first
    pass of each size warms up and is not counted. Pictures are noise; a self-prompting model gets those of its first
    modality.

    Args:
        runtimes: by name; threads and device are theirs.
        batches: pictures at once.
        rounds: counted passes of each size.

    Returns:
        By name, by number of pictures at once as text (as JSON has it).
    """
    seconds: dict[str, dict[int, list[float]]] = {name: {size: [] for size in batches} for name in runtimes}
    for size in batches:
        for _ in range(rounds + 1):
            for name, runtime in runtimes.items():
                seconds[name][size].append(_pass(runtime, size))
    return {
        name: {str(size): round(size / median(laps[1:] or laps), 2) for size, laps in own.items()}
        for name, own in seconds.items()
    }


def _pass(runtime: Runtime, count: int) -> float:
    """Seconds of one batch."""
    side = next(iter(runtime.model.specs.values())).size
    images = np.random.RandomState(0).randn(count, 3, side, side).astype(np.float32)
    at_once = (
        runtime.encode_at_once if isinstance(runtime, PromptedGraphs | OpenVinoRuntime) else runtime.encode
    )
    start = time.perf_counter()
    at_once(images, 0)
    return time.perf_counter() - start
