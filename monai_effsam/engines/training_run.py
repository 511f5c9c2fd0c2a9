# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A whole training run, and its parts, which bundles name one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import torch
from monai.engines import SupervisedTrainer
from monai.utils import set_determinism
from torch import nn

from monai_effsam.checkpoints import save_model
from monai_effsam.data.balanced import BalancedBatches
from monai_effsam.data.balanced_views import BalancedViews
from monai_effsam.data.sets import Case
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.data.training_slices import TrainingSlices
from monai_effsam.engines.build import build_network, build_promptable
from monai_effsam.engines.calibration import calibrate_presence
from monai_effsam.engines.optimisation import Schedule, build_optimizer, step_trainer
from monai_effsam.engines.promptable import PromptableStep, PromptSettings
from monai_effsam.engines.recipe import PromptableRecipe, Recipe, TrainingRecipe
from monai_effsam.engines.run_keeper import RunKeeper
from monai_effsam.engines.self_prompting import SelfPromptingStep
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.targets import TARGETS, Target

__all__ = ["build_loader", "build_trainer", "finish_run", "train"]


def train(
    recipe: Recipe | PromptableRecipe,
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
        init: see `build_network` and `build_promptable`.
        resume: continue from `out/checkpoint.pt` if it is there.
        device: to train on.
        card: further entries for `model.json`.

    Returns:
        Path of `model.pt`.
    """
    set_determinism(recipe.seed + idist.get_rank())
    dataset = TrainingSlices(cases, recipe.specs(), targets, held_out=recipe.held_out)
    network: EspMedSam | PromptableSam
    if isinstance(recipe, PromptableRecipe):
        network = build_promptable(recipe, init)
    else:
        network = build_network(recipe, targets, init)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    modalities = tuple(dict.fromkeys(target.modality for target in targets))
    loader = build_loader(recipe, dataset.slices, modalities)
    keeper = RunKeeper(out, recipe, network, resume)
    trainer = build_trainer(recipe, network, loader, keeper, max_epochs=recipe.epochs, device=device)
    return finish_run(trainer, keeper, recipe, dataset, out / "model.pt", card=card)


def build_loader(
    recipe: TrainingRecipe, slices: Sequence[LabelledSlice], modalities: Sequence[str]
) -> BalancedBatches:
    """The batches that a recipe draws from some slices, in this process.

    Args:
        recipe: its weights count only if they name at least one of the sets at hand.
        slices: to draw from.
        modalities: of the target table, in its order.
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
    recipe: Recipe | PromptableRecipe,
    network: EspMedSam | PromptableSam,
    loader: BalancedBatches | BalancedViews,
    keeper: RunKeeper[Any],
    *,
    max_epochs: int,
    device: torch.device | str = "cpu",
    handlers: Sequence[Any] = (),
    step: nn.Module | None = None,
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
        step: (batch, number) -> loss terms; that of training on labels by default.
    """
    steps = recipe.epochs * recipe.epoch_length
    schedule = Schedule(steps, min(100, steps // 5), recipe.rate, recipe.trunk_rate)
    optimizer = build_optimizer(network, schedule, recipe.weight_decay)
    step = step or _step(recipe, network)
    if idist.get_world_size() > 1:
        step = nn.parallel.DistributedDataParallel(step, find_unused_parameters=True)
    trainer = step_trainer(
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


def _step(recipe: Recipe | PromptableRecipe, network: EspMedSam | PromptableSam) -> nn.Module:
    """The step that trains this kind of network."""
    if isinstance(network, EspMedSam) or not isinstance(recipe, PromptableRecipe):
        return SelfPromptingStep(cast(EspMedSam, network), seed=recipe.seed)
    settings = PromptSettings(recipe.objects, recipe.jitter, recipe.rounds)
    return PromptableStep(network, settings, seed=recipe.seed)


def finish_run(
    trainer: SupervisedTrainer,
    keeper: RunKeeper[Any],
    recipe: Recipe | PromptableRecipe,
    dataset: TrainingSlices,
    path: Path | str,
    *,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Train what is left to train, calibrate the averaged network if it tells presence, and write it.

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
        content: dict[str, Any] = {"recipe": asdict(recipe), "data": dataset.summary(), **(card or {})}
        specs = recipe.specs()
        if isinstance(recipe, PromptableRecipe):
            specs = recipe.stored_specs()
        else:
            content["calibration"] = calibrate_presence(keeper.average, dataset.held, specs)
        save_model(
            Path(path), keeper.average, specs, recipe.network_options(), content, targets=dataset.targets
        )
    idist.barrier()
    return Path(path)
