# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a teacher cache is worth: seconds an epoch with it and without it, measured in one run."""

from __future__ import annotations

import copy
import time
from itertools import cycle, islice

import torch

from monai_effsam.engines.distillation import DistillationStep
from monai_effsam.engines.distilling_run import Distillation

__all__ = ["epoch_seconds"]


def epoch_seconds(run: Distillation, count: int = 5) -> dict[str, float]:
    """Seconds that an epoch of the encoder's stage takes, reckoned from a few of its steps; nothing is trained.

    Steps with the cache and without it take turns, on the same views, after one of each that does not count.

    Args:
        run: whose teacher, pictures and student are used.
        count: steps of either kind.

    Returns:
        `uncached`; with a cache also `cached`, and the factor between them, `gain`.
    """
    step = DistillationStep(copy.deepcopy(run.network.image_encoder), run.perceptual, 1.0).train()
    optimizer = torch.optim.AdamW(step.parameters(), lr=0.0)
    batches = run.batches(run.teacher, labels=run.recipe.perceptual == "masked")
    rows = batches.chosen(0)
    parts = [rows[i * batches.size : (i + 1) * batches.size] for i in range(len(batches))]
    cache = run.teacher.cache
    spent: dict[str, list[float]] = {"uncached": []} if cache is None else {"cached": [], "uncached": []}
    try:
        for part in islice(cycle([parts[0], *parts]), 1 + count):
            for name, times in spent.items():
                run.teacher.cache = cache if name == "cached" else None
                began = time.perf_counter()
                batch = batches.collate([batches.view(*pair) for pair in part]).to(run.device)
                optimizer.zero_grad(set_to_none=True)
                loss = step(batch, 0)["loss"]
                loss.backward()
                optimizer.step()
                loss.item()  # waits for a GPU
                times.append(time.perf_counter() - began)
    finally:
        run.teacher.cache = cache
    found = {name: len(batches) * sum(times[1:]) / count for name, times in spent.items()}
    return found | ({"gain": found["uncached"] / found["cached"]} if cache is not None else {})
