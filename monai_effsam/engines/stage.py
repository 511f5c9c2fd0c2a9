# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One stage of a distillation: a module trained under a watch, left with its best weights, never done twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_effsam.data.distilling import DistillationBatches
from monai_effsam.engines.distilling_recipe import DistillationRecipe
from monai_effsam.engines.optimisation import Schedule, build_optimizer, step_trainer
from monai_effsam.engines.run_keeper import RunKeeper
from monai_effsam.engines.watch import HeldOutWatch

__all__ = ["Stage", "train_stage"]


@dataclass(frozen=True)
class Stage:
    """What is trained, on what, and how it is judged.

    Args:
        step: (batch, number) -> loss terms.
        module: part of the step that is trained; its best weights are kept.
        batches: to train on.
        measure: numbers of such a module on held-out pictures; None for none.
        key: of the number that decides.
        smaller: whether smaller is better.
        rates: learning rate of new layers and of the trunk.
        more: further parts of the checkpoint, by name.
    """

    step: nn.Module
    module: nn.Module
    batches: DistillationBatches
    measure: Callable[[Any], Mapping[str, float]] | None
    key: str
    smaller: bool
    rates: tuple[float, float]
    more: Mapping[str, Any] = field(default_factory=dict)


def train_stage(
    stage: Stage,
    folder: Path,
    recipe: DistillationRecipe,
    *,
    resume: bool = False,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Train a stage, or take what it gave where it is done, and leave its module with the best weights.

    Args:
        stage: to be trained.
        folder: of the stage, named as it: `checkpoint.pt`, curves, then `weights.pt` and `done.json`.
        recipe: of the run.
        resume: go on where an earlier run was.
        device: to train on.

    Returns:
        Epochs, the numbers before and after, seconds.

    Raises:
        UsageError: the folder holds a run of another recipe.
    """
    weights, done = folder / "weights.pt", folder / "done.json"
    if resume and done.is_file():
        stage.module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return dict(json.loads(done.read_text(encoding="utf-8")))
    epochs, length = recipe.epochs[folder.name], len(stage.batches)
    schedule = Schedule(epochs * length, min(100, epochs * length // 5), *stage.rates)
    optimizer = build_optimizer(stage.step, schedule, recipe.weight_decay)
    keeper = RunKeeper(folder, recipe, stage.module, resume)
    average = keeper.average
    watch = HeldOutWatch(
        average,
        None if stage.measure is None else partial(stage.measure, average),
        stage.key,
        folder / "held_out.jsonl",
        smaller=stage.smaller,
        patience=recipe.patience,
    )
    keeper.parts |= {"watch": watch, **stage.more}
    trainer = step_trainer(
        stage.step,
        stage.batches,
        optimizer,
        schedule,
        epochs=epochs,
        epoch_length=length,
        device=device,
        handlers=[watch],
    )
    keeper.attach(trainer, stage.batches, optimizer)
    started = time.monotonic()
    if trainer.state.epoch < epochs and not watch.finished:
        trainer.run()
    stage.module.load_state_dict(watch.best)
    summary = {
        "epochs": trainer.state.epoch,
        "best_epoch": watch.best_epoch if watch.history else trainer.state.epoch,
        "before": watch.history[0] if watch.history else {},
        "after": watch.history[watch.best_epoch] if watch.history else {},
        "seconds": round(time.monotonic() - started, 1),
    }
    _write(weights, lambda part: torch.save(watch.best, part))
    _write(done, lambda part: part.write_text(json.dumps(summary, indent=1) + "\n", "utf-8"))
    return summary


def _write(file: Path, write: Callable[[Path], object]) -> None:
    """A file, whole or not at all."""
    part = file.with_name(file.name + ".part")
    write(part)
    part.replace(file)
