# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A whole training run of the self-prompting model, and its parts, which bundles name one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.engines import SupervisedTrainer
from monai.utils import set_determinism
from torch import nn

from monai_effsam.checkpoints import save_model
from monai_effsam.data.balanced import BalancedBatches, LabelledSlice
from monai_effsam.data.sets import Case
from monai_effsam.data.training_slices import TrainingSlices
from monai_effsam.engines.calibration import calibrate_presence
from monai_effsam.engines.recipe import SIZES, Recipe, build_network
from monai_effsam.engines.run_keeper import RunKeeper
from monai_effsam.engines.self_prompting import (
    Schedule,
    SelfPromptingStep,
    build_optimizer,
    self_prompting_trainer,
)
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.targets import TARGETS, Target

__all__ = ["SIZES", "Recipe", "build_loader", "build_network", "build_trainer", "finish_run", "train"]


def train(
    recipe: Recipe,
    cases: Sequence[Case],
    out: Path,
    *,
    targets: Sequence[Target] = TARGETS,
    init: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Train and write `out/model.pt`; one process's part of it under data parallelism.

    Args:
        recipe: what to train and how.
        cases: training cases (never validation ones).
        out: run folder: `checkpoint.pt`, `losses.jsonl`, TensorBoard events, `model.pt`.
        targets: the target table.
        init: see `build_network`.
        resume: continue from `out/checkpoint.pt` if it is there.
        device: to train on.
        card: further entries for `model.json`.

    Returns:
        Path of `model.pt`.
    """
    set_determinism(recipe.seed + idist.get_rank())
    dataset = TrainingSlices(cases, recipe.specs(), targets, held_out=recipe.held_out)
    network = build_network(recipe, targets, init).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = build_loader(recipe, dataset.slices, network.modalities)
    keeper = RunKeeper(out, recipe, network, resume)
    trainer = build_trainer(recipe, network, loader, keeper, max_epochs=recipe.epochs, device=device)
    return finish_run(trainer, keeper, recipe, dataset, out / "model.pt", card=card)


def build_loader(
    recipe: Recipe, slices: Sequence[LabelledSlice], modalities: Sequence[str]
) -> BalancedBatches:
    """The batches that a recipe draws from some slices, in this process.

    Args:
        recipe: its weights count only if they name at least one of the sets at hand.
        slices: to draw from.
        modalities: the network's, in its order.
    """
    steps = recipe.epochs * recipe.epoch_length
    at_hand = {name for s in slices for name in (s.stratum, s.stratum.split("/")[0])}
    return BalancedBatches(
        slices,
        recipe.specs(),
        modalities,
        weights={name: share for name, share in recipe.weights.items() if name in at_hand},
        batch_area=recipe.batch_area,
        epoch_length=recipe.epoch_length,
        seed=recipe.seed,
        rank=idist.get_rank(),
        warm_steps=round(steps * recipe.warm_share),
        warm_scale=recipe.warm_scale,
    )


def build_trainer(
    recipe: Recipe,
    network: EspMedSam,
    loader: BalancedBatches,
    keeper: RunKeeper,
    *,
    max_epochs: int,
    device: torch.device | str = "cpu",
    handlers: Sequence[Any] = (),
) -> SupervisedTrainer:
    """The recipe's trainer of a network; with several processes the step is data-parallel.

    Args:
        recipe: what to train and how.
        network: on the device already.
        loader: gives the batches.
        keeper: of the run; attached after the other handlers, so that it sees weights that one of them loads.
        max_epochs: to train; the schedule is the recipe's.
        device: to train on.
        handlers: MONAI handlers.
    """
    steps = recipe.epochs * recipe.epoch_length
    schedule = Schedule(steps, min(100, steps // 5), recipe.rate, recipe.trunk_rate)
    optimizer = build_optimizer(network, schedule, recipe.weight_decay)
    step: nn.Module = SelfPromptingStep(network, seed=recipe.seed)
    if idist.get_world_size() > 1:
        step = nn.parallel.DistributedDataParallel(step, find_unused_parameters=True)
    trainer = self_prompting_trainer(
        step,
        loader,
        optimizer,
        schedule,
        epochs=max_epochs,
        epoch_length=recipe.epoch_length,
        device=device,
        handlers=handlers,
    )
    keeper.attach(trainer, loader, optimizer)
    return trainer


def finish_run(
    trainer: SupervisedTrainer,
    keeper: RunKeeper,
    recipe: Recipe,
    dataset: TrainingSlices,
    path: Path | str,
    *,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Train what is left to train, calibrate the averaged network and write it.

    Args:
        trainer: of `build_trainer`.
        keeper: of the run.
        recipe: that was trained.
        dataset: its held-out slices calibrate presence.
        path: of `model.pt`.
        card: further entries for `model.json`.

    Returns:
        The path.
    """
    if trainer.state.epoch < trainer.state.max_epochs:
        trainer.run()
    if idist.get_rank() == 0:
        specs = recipe.specs()
        content = {
            "recipe": asdict(recipe),
            "calibration": calibrate_presence(keeper.average, dataset.held, specs),
            "data": dataset.summary(),
            **(card or {}),
        }
        save_model(Path(path), keeper.average, specs, recipe.network_options(), content)
    idist.barrier()
    return Path(path)
