# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One round of learning: labelled items in, a better model published, or none."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine, Events

from monai_effsam.checkpoints import LoadedModel, load_model, save_model
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.engines.optimisation import Schedule, build_optimizer, step_trainer
from monai_effsam.engines.watch import HeldOutWatch
from monai_effsam.errors import DataError, UsageError
from monai_effsam.labelling.learning.labelled import LabelledItem, read_items, split_items
from monai_effsam.labelling.learning.publication import current, publish
from monai_effsam.labelling.learning.tuning import (
    CachedSlice,
    CachedSlices,
    CachedStep,
    cache_slices,
    held_dice,
)
from monai_effsam.networks.nets import EspMedSam

__all__ = ["Learned", "Learning", "Progress", "fine_tune", "learn", "train_cached"]

log = logging.getLogger(__name__)

LEAST = 5
"""Labels that a round needs: some to train on, one to judge by."""

PATIENCE = 4
"""Epochs without a better one after which a round ends."""

_MOST = 600
"""Slices that are trained on, at most, and views: as many as fit into about a gigabyte."""

_MOST_HELD = 60


@dataclass(frozen=True, slots=True)
class Learning:
    """How a round learns.

    Args:
        controllers: train the modality controllers too, not only self-prompter and decoder.
        epochs: after each the held labels judge; the best one counts.
        epoch_length: steps of each.
        batch: slices a step.
        rate: highest learning rate.
        held_share: share of the labels that judge, 0..0.5; with 0 all train, and the result is published unjudged.
        seed: of everything random.
    """

    controllers: bool = False
    epochs: int = 8
    epoch_length: int = 20
    batch: int = 4
    rate: float = 3e-4
    held_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: a number outside its range.
        """
        ranges = {
            "epochs": (1, 200),
            "epoch_length": (1, 1000),
            "batch": (1, 32),
            "rate": (1e-6, 1e-2),
            "held_share": (0.0, 0.5),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(
                    f"train: {name} is {getattr(self, name)}, expected {low}..{high}. Change it."
                )


@dataclass(frozen=True, slots=True)
class Learned:
    """What a round gave.

    Args:
        published: `model.pt`, None where the new weights were worse on the held labels, or the round was cancelled.
        before: Dice of the model in use on the held labels.
        after: Dice of the new one.
        trained: labels trained on.
        held: labels judged by.
        seconds: in all.
    """

    published: Path | None
    before: float
    after: float
    trained: int
    held: int
    seconds: float


Progress = Callable[[int, float], bool]
"""Called with epochs done and the best Dice so far; False cancels."""


def learn(
    items: Sequence[LabelledItem],
    base: Path,
    models: Path,
    *,
    modality: str | None = None,
    targets: Collection[str] = (),
    learning: Learning | None = None,
    progress: Progress = lambda epoch, best: True,
) -> Learned:
    """Fine-tune the first model on all labels, and publish it if it is no worse than the one in use.

    Every round starts from the same weights, so that its result depends on the labels and not on their order.

    Args:
        items: with labels.
        base: the model that the app started from; self-prompting.
        models: folder of the published versions.
        modality: of images that do not tell it.
        targets: names of those that are asked for when models are judged; all by default.
        learning: how.
        progress: called before the first epoch and after each.

    Raises:
        DataError: too few labels that can be used.
        UsageError: the model is not self-prompting, or its controllers cannot learn from cached maps.
    """
    learning, started = learning or Learning(), time.monotonic()
    model = load_model(base)
    if model.promptable:
        raise UsageError(f"{base}: is a promptable model, expected a self-prompting one. Name another.")
    taught, judges = _read(items, learning.held_share, model, modality)
    in_use = current(models)
    before_model = model if in_use is None else load_model(in_use)
    cached_held = list(cache_slices(model, judges))
    own_held = cached_held if in_use is None else list(cache_slices(before_model, judges))
    before = held_dice(before_model, own_held, targets)
    cached = list(cache_slices(model, taught, views=max(1, min(3, _MOST // (2 * len(taught))))))
    tuned = replace(model, network=deepcopy(model.network))
    after, whole = train_cached(tuned, cached, cached_held, learning, progress, targets)
    facts = {"trained": len({s.case for s in taught}), "held": len({s.case for s in judges})}
    published = None
    if whole and after >= before:
        numbers = {
            "dice_before": before,
            "dice": after,
            "labels": facts,
            "from": str(model.card.get("sha256")),
        }
        published = publish(models, lambda folder: _save(folder, tuned, numbers))
    log.info("Dice %.4f -> %.4f on %d held labels: %s", before, after, facts["held"], published or "kept")
    return Learned(published, before, after, **facts, seconds=round(time.monotonic() - started, 1))


def _read(
    items: Sequence[LabelledItem], held_share: float, model: LoadedModel, modality: str | None
) -> tuple[list[LabelledSlice], list[LabelledSlice]]:
    """Slices to train on and to judge by, never too many; chosen among the labels that can be used."""
    every = read_items(items, model.specs, model.targets, modality)
    usable = {one.case for one in every}
    if len(usable) < LEAST:
        raise DataError(
            f"train: {len(usable)} labels can be used, expected at least {LEAST}. Label more images; the log tells "
            "which were passed over."
        )
    if not held_share:
        return _evenly(every, _MOST), []
    _, held = split_items([item for item in items if item.image_id in usable], held_share)
    judging = {item.image_id for item in held}
    taught = [one for one in every if one.case not in judging]
    judges = [one for one in every if one.case in judging]
    if not judges:  # all of one group; of two or more, one trains and one judges
        raise DataError(
            f"train: {len(usable)} labels can be used, but all are of one patient, expected two patients or more. "
            "Label images of others."
        )
    return _evenly(taught, _MOST), _evenly(judges, _MOST_HELD)


def _evenly(slices: list[LabelledSlice], most: int) -> list[LabelledSlice]:
    """At most so many of the slices, evenly spread."""
    step = max(1.0, len(slices) / most)
    return [slices[math.floor(n * step)] for n in range(min(most, len(slices)))]


def train_cached(
    model: LoadedModel,
    cached: Sequence[CachedSlice],
    held: Sequence[CachedSlice],
    learning: Learning,
    progress: Progress = lambda epoch, best: True,
    targets: Collection[str] = (),
) -> tuple[float, bool]:
    """Train a model in place on cached slices; it is left with the weights of its best epoch.

    Args:
        model: its network is changed.
        cached: to train on.
        held: to judge by; empty for the weights of the last epoch, unjudged.
        learning: how.
        progress: called after each epoch.
        targets: names of those that are asked for when it is judged; all by default.

    Returns:
        Dice on the held slices (0 without any), and whether the training was not cancelled.
    """
    network = cast(EspMedSam, model.network)
    step = CachedStep(network, controllers=learning.controllers, seed=learning.seed)
    steps = learning.epochs * learning.epoch_length
    schedule = Schedule(steps, max(1, steps // 10), learning.rate, learning.rate)
    batches = CachedSlices(
        cached,
        network.modalities,
        batch=learning.batch,
        epoch_length=learning.epoch_length,
        seed=learning.seed,
    )
    random = torch.random.get_rng_state()
    torch.manual_seed(learning.seed)
    trainer = step_trainer(
        step,
        batches,
        build_optimizer(network, schedule),
        schedule,
        epochs=learning.epochs,
        epoch_length=learning.epoch_length,
    )
    measure = (lambda: {"dice": held_dice(model, held, targets)}) if held else None
    watch = HeldOutWatch(network, measure, "dice", None, smaller=False, patience=PATIENCE)
    watch.attach(trainer)
    cancelled = False

    def tell(engine: Engine) -> None:
        nonlocal cancelled
        if not progress(engine.state.epoch, _best(watch)):
            cancelled = True
            engine.terminate()

    trainer.add_event_handler(Events.EPOCH_COMPLETED, tell)
    trainer.add_event_handler(Events.STARTED, tell)
    trainer.run()
    torch.random.set_rng_state(random)
    network.load_state_dict(watch.best or network.state_dict())
    network.eval()
    return _best(watch), not cancelled


def _best(watch: HeldOutWatch) -> float:
    """Dice of the best epoch so far, 0 where nothing was measured."""
    return watch.history[watch.best_epoch]["dice"] if watch.history else 0.0


def _save(folder: Path, model: LoadedModel, validation: dict[str, Any]) -> None:
    """A version's files; its card is the first model's with what was learnt here."""
    own = {"format", "kind", "network", "specs", "targets", "sha256"}
    card = {k: v for k, v in model.card.items() if k not in own}
    save_model(
        folder / "model.pt",
        model.network,
        model.specs,
        model.card["network"],
        {**card, "learnt": validation},
        targets=model.targets,
    )


def fine_tune(model: LoadedModel, cached: Sequence[CachedSlice], learning: Learning) -> LoadedModel:
    """A copy of a model, trained on cached slices with nobody to judge; for simulations.

    Args:
        model: stays as it is.
        cached: of this model.
        learning: how.
    """
    tuned = replace(model, network=deepcopy(model.network))
    train_cached(tuned, cached, (), learning)
    return tuned
