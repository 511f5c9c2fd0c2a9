# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A whole training of the modality router: pictures, network, calibration, files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from monai_effsam.checkpoints.classifier_file import save_classifier
from monai_effsam.data.placement import apply_spec
from monai_effsam.data.routing.batches import RoutingBatches
from monai_effsam.data.routing.foreign import drawn_pictures, photographs
from monai_effsam.data.routing.pictures import ModalityPicture, case_pictures, of_sources
from monai_effsam.data.routing.views import GENTLE, routing_view
from monai_effsam.data.sets import Case
from monai_effsam.data.slices import hold_out
from monai_effsam.engines.class_teacher import ClassGuide, ClassTeacher
from monai_effsam.engines.classification import (
    Calibration,
    ClassificationStep,
    ClassifierRecipe,
    calibrate,
    class_logits,
    settle_norms,
)
from monai_effsam.engines.optimisation import build_optimizer, step_trainer
from monai_effsam.engines.run_keeper import RunKeeper
from monai_effsam.errors import DataError, UsageError
from monai_effsam.metrics.complexity import count_parameters
from monai_effsam.networks.nets.tic import TicClassifier
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import MODALITIES

__all__ = [
    "UNKNOWN",
    "RoutingData",
    "build_router_trainer",
    "calibrate_router",
    "finish_router",
    "router_teacher",
    "routing_data",
    "routing_loader",
]

log = logging.getLogger(__name__)

UNKNOWN = "unknown"

SETTLING = 32
"""Batches that the averaged network's norms are settled on."""


@dataclass(frozen=True)
class RoutingData:
    """What a router is trained and calibrated on.

    Args:
        pictures: known ones, to train on.
        held: known ones of other patients, to calibrate on.
        photographs: foreign ones, of the family to learn.
        sources: number of training pictures of each source.
    """

    pictures: tuple[ModalityPicture, ...]
    held: tuple[ModalityPicture, ...]
    photographs: tuple[ModalityPicture, ...]
    sources: Mapping[str, int]


def routing_data(cases: Sequence[Case], recipe: ClassifierRecipe) -> RoutingData:
    """Read the training cases.

    Args:
        cases: of all splits; those of `train` are taken, without the sources that the recipe leaves out.
        recipe: of the run.

    Raises:
        DataError: a picture cannot be read, or none is left.
    """
    taught = [case for case in of_sources(cases, recipe.left_out)[1] if case.split == "train"]
    train, held = hold_out(taught, recipe.held_out)
    pictures = tuple(p for case in train for p in case_pictures(case, varied=True))
    if not pictures:
        raise DataError("router: no pictures of split 'train', expected some of every modality. Add sets.")
    own = tuple(p for case in held for p in case_pictures(case))
    foreign = tuple(photographs("learned"))
    if not foreign:
        log.warning(
            "no photographs: pip install scikit-image scikit-learn; foreign pictures are drawings only"
        )
    return RoutingData(pictures, own, foreign, Counter(p.source for p in pictures))


def routing_loader(data: RoutingData, recipe: ClassifierRecipe) -> RoutingBatches:
    """The batches that a recipe draws, in this process.

    Raises:
        DataError: a modality has no picture.
    """
    return RoutingBatches(
        data.pictures,
        data.photographs,
        MODALITIES,
        recipe.spec,
        batch=recipe.batch,
        epoch_length=recipe.epoch_length,
        foreign=recipe.foreign,
        seed=recipe.seed,
        rank=idist.get_rank(),
        warm_steps=round(recipe.steps * recipe.warm_share),
        warm_size=recipe.warm_size,
        gentle_from=recipe.steps - round(recipe.steps * recipe.gentle_share),
        mix=recipe.mix,
        smoothing=recipe.smoothing,
    )


def router_teacher(
    data: RoutingData, recipe: ClassifierRecipe, file: Path | str | None, device: torch.device | str = "cpu"
) -> ClassTeacher | None:
    """The teacher that a recipe names, fitted to views of the pictures; None where it names none.

    Args:
        data: its pictures are looked at.
        recipe: of the run.
        file: of the teacher's weights.
        device: to run on.

    Raises:
        WeightsError: the weights do not fit.
        UsageError: a teacher without weights.
    """
    if not recipe.teacher:
        return None
    if file is None:
        raise UsageError(
            f"teacher {recipe.teacher}: no weights, expected a safetensors file. Give their path."
        )
    teacher = ClassTeacher(recipe.teacher, Path(file), recipe.spec, len(MODALITIES) + 1).to(device)
    strong = replace(recipe, gentle_share=0.0, warm_share=0.0, mix=0.0, seed=recipe.seed + 1)
    batches = routing_loader(data, strong)
    right = teacher.fit(map(batches.batch, range(recipe.teacher_views)))
    log.info("teacher: %.1f %% of %d views", 100 * right, recipe.teacher_views * recipe.batch)
    return teacher


def build_router_trainer(
    recipe: ClassifierRecipe,
    network: TicClassifier,
    loader: Any,
    keeper: RunKeeper[TicClassifier],
    *,
    max_epochs: int | None = None,
    device: torch.device | str = "cpu",
    handlers: Sequence[Any] = (),
    teacher: ClassTeacher | None = None,
) -> SupervisedTrainer:
    """The trainer of a classifier; with several processes the step is data-parallel.

    Args:
        recipe: of the run.
        network: on the device already.
        loader: gives `ClassBatch`es, and has an `epoch`.
        keeper: of the run.
        max_epochs: to train; the schedule is the recipe's, and so is the default.
        device: to train on.
        handlers: MONAI handlers.
        teacher: fitted, to learn from too.
    """
    schedule = recipe.schedule()
    guide = None
    if teacher is not None:
        guide = ClassGuide(teacher, network, recipe.teacher_weight, recipe.teacher_features).to(device)
        keeper.parts["guide"] = guide.map
    step: nn.Module = ClassificationStep(network, recipe.smoothing, guide)
    optimizer = build_optimizer(step, schedule, recipe.weight_decay)
    if idist.get_world_size() > 1:
        step = nn.parallel.DistributedDataParallel(step)
    trainer = step_trainer(
        step,
        loader,
        optimizer,
        schedule,
        epochs=max_epochs or recipe.epochs,
        epoch_length=recipe.epoch_length,
        device=device,
        handlers=handlers,
    )
    keeper.attach(trainer, loader, optimizer)
    return trainer


def finish_router(
    trainer: SupervisedTrainer,
    keeper: RunKeeper[TicClassifier],
    recipe: ClassifierRecipe,
    data: RoutingData,
    path: Path | str,
    *,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Train what is left to train, calibrate the averaged network, and write it.

    Args:
        trainer: of `build_router_trainer`.
        keeper: of the run.
        recipe: that was trained.
        data: its held-out pictures calibrate.
        path: of `model.pt`.
        card: further entries for `model.json`.

    Returns:
        The path.
    """
    if trainer.state.epoch < trainer.state.max_epochs:
        trainer.run()
    if idist.get_rank() == 0:
        device = next(keeper.average.parameters()).device
        last = routing_loader(data, replace(recipe, mix=0.0))
        settle_norms(keeper.average, map(last.batch, range(recipe.steps, recipe.steps + SETTLING)), device)
        set_on = calibrate_router(keeper.average, data, recipe.spec, recipe.seed)
        content = {
            "parameters": count_parameters(keeper.average),
            "recipe": asdict(recipe),
            "calibration": set_on._asdict(),
            "sources": dict(data.sources),
        }
        classes = (*MODALITIES, UNKNOWN)
        save_classifier(
            Path(path), keeper.average, recipe.spec, recipe.network, classes, {**content, **(card or {})}
        )
    idist.barrier()
    return Path(path)


def calibrate_router(
    network: TicClassifier, data: RoutingData, spec: ImageSpec, seed: int = 0
) -> Calibration:
    """Temperature and threshold from held-out pictures, as they are and mildly varied, and drawings not seen yet."""
    held = data.held or data.pictures[:: max(1, len(data.pictures) // 500)]
    random = np.random.RandomState([seed, 1])
    foreign = [*drawn_pictures("learned", 12, seed + 1), *data.photographs]
    both = [*held, *foreign]
    plain = [apply_spec(p.image, spec)[0] for p in both]
    varied = [apply_spec(routing_view(p.image, random, spec.size, GENTLE, p.modality), spec)[0] for p in both]
    target = torch.tensor([MODALITIES.index(p.modality) if p.modality else len(MODALITIES) for p in both] * 2)
    device = next(network.parameters()).device
    return calibrate(class_logits(network, _batches([*plain, *varied]), device), target)


def _batches(images: Sequence[Any], size: int = 64) -> Iterable[Tensor]:
    for start in range(0, len(images), size):
        yield torch.from_numpy(np.stack(images[start : start + size]))
