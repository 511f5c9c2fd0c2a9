# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a teacher cache is worth and what it costs: seconds an epoch with it and without it, bytes and error a view."""

from __future__ import annotations

import copy
import time
from itertools import cycle, islice

import numpy as np
import torch

from monai_effsam.data.distilling import EMBEDDING
from monai_effsam.data.teacher_cache import CacheForm, FormCost, form_cost
from monai_effsam.engines.distilling_run import Distillation

__all__ = ["epoch_seconds", "form_costs"]

_FORMS: tuple[CacheForm, ...] = ("half", "compact")


def epoch_seconds(run: Distillation, count: int = 5) -> dict[str, float]:
    """Seconds that an epoch of the encoder's stage takes, reckoned from a few of its steps; nothing is trained.

    Steps with the cache and without it take turns, on the same views, after one of each that does not count.

    Args:
        run: whose teacher, pictures and student are used.
        count: steps of either kind.

    Returns:
        `uncached`; with a cache also `cached`, and the factor between them, `gain`.
    """
    step = run.encoder_step(copy.deepcopy(run.network.image_encoder)).train()
    optimizer = torch.optim.AdamW(step.parameters(), lr=0.0)
    batches = run.encoder_batches()
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


def form_costs(run: Distillation, count: int = 5) -> dict[str, FormCost]:
    """Bytes and error of one view's embedding in each form of the cache, means over a few pictures.

    Args:
        run: whose teacher and pictures are used.
        count: pictures.
    """
    batches = run.batches(run.teacher)
    cache, run.teacher.cache = run.teacher.cache, None
    try:
        views = [batches.view(*pair) for pair in batches.chosen(0)[:count]]
        embeddings = [arrays[EMBEDDING] for arrays in run.teacher.arrays(views)]
    finally:
        run.teacher.cache = cache
    costs = {form: [form_cost(embedding, form) for embedding in embeddings] for form in _FORMS}
    return {
        form: FormCost(round(np.mean([c.bytes for c in found])), float(np.mean([c.error for c in found])))
        for form, found in costs.items()
    }
