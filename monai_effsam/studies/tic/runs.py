# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One run: a network trained at one size and tested at several, as rows."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.data.io import write_bytes
from monai_effsam.data.routing.batches import ClassBatch
from monai_effsam.engines.optimisation import Schedule, build_optimizer, step_trainer
from monai_effsam.errors import DataError
from monai_effsam.metrics.classification import class_scores
from monai_effsam.metrics.complexity import count_parameters
from monai_effsam.studies.tic.batches import StudyBatches
from monai_effsam.studies.tic.nets import study_net
from monai_effsam.studies.tic.tasks import StudyTask

__all__ = ["StudyPlan", "StudyRow", "append_rows", "hold_to_plan", "read_rows", "run_study"]

_AT_ONCE = 8  # pictures tested in one pass


@dataclass(frozen=True)
class StudyPlan:
    """How every network is trained and tested.

    Args:
        side: of the training images [px].
        sides: of the test images [px], the training's among them.
        steps: of each task.
        batch: views a step.
        rate: highest learning rate.
        weight_decay: of AdamW.
        smoothing: share of the target that is spread over all classes.
        most: pictures of a class that are tested, of each task that has more.
    """

    side: int = 128
    sides: tuple[int, ...] = (96, 128, 160, 224, 320)
    steps: Mapping[str, int] = field(
        default_factory=lambda: {"breast": 220, "modality": 300, "modality-zoom": 300}
    )
    batch: int = 16
    rate: float = 1e-3
    weight_decay: float = 0.05
    smoothing: float = 0.05
    most: Mapping[str, int] = field(default_factory=lambda: {"modality": 40, "modality-zoom": 40})


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One network of one run, tested at one size.

    Args:
        task: name of the task.
        net: name of the network.
        seed: of weights and batches.
        side: of the test images [px].
        accuracy: share of right answers, 0..1.
        balanced: mean recall of the classes, 0..1.
        auc: mean area under the ROC curve of the classes, 0..1.
        fitted: accuracy on the views of the last tenth of the training, 0..1.
        parameters: of the network.
        seconds: of the processor that the training took.
    """

    task: str
    net: str
    seed: int
    side: int
    accuracy: float
    balanced: float
    auc: float
    fitted: float
    parameters: int
    seconds: float


class _LabelledStep(nn.Module):
    """Any classifier and cross-entropy as one module; `ClassificationStep` is for TiC."""

    def __init__(self, network: nn.Module, smoothing: float) -> None:
        super().__init__()
        self.network, self.smoothing = network, smoothing

    def forward(self, batch: ClassBatch, step: int) -> dict[str, Tensor]:
        """`loss` is what to minimise, `accuracy` the share of right answers."""
        logits = self.network(batch.image)
        loss = F.cross_entropy(logits, batch.target, label_smoothing=self.smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(1) == batch.target).float().mean()}


def run_study(
    task: StudyTask, net: str, seed: int, plan: StudyPlan, images: Mapping[int, Tensor]
) -> list[StudyRow]:
    """Train one network and test it: a row a size.

    Args:
        task: to learn.
        net: name in `STUDY_NETS`.
        seed: of weights and batches.
        plan: of the comparison.
        images: side -> the test images, as of `val_images`.
    """
    network = study_net(net, len(task.classes), plan.side, seed)
    start = time.process_time()
    fitted = _train(network, task, seed, plan)
    seconds = time.process_time() - start
    target = np.array(task.target)
    rows = []
    for side in plan.sides:
        found = class_scores(_probabilities(network, images[side]), target)
        accuracy, balanced, auc, last = (round(value, 5) for value in (*found, fitted))
        one = StudyRow(
            task.name,
            net,
            seed,
            side,
            accuracy,
            balanced,
            auc,
            last,
            count_parameters(network),
            round(seconds, 1),
        )
        rows.append(one)
    return rows


def _train(network: nn.Module, task: StudyTask, seed: int, plan: StudyPlan) -> float:
    """Train; the accuracy on the views of the last tenth."""
    steps = plan.steps[task.name]
    schedule = Schedule(steps, max(1, steps // 10), plan.rate, plan.rate)
    loader = StudyBatches(task, plan.side, plan.batch, steps, seed)
    step = _LabelledStep(network, plan.smoothing)
    optimizer = build_optimizer(step, schedule, plan.weight_decay)
    trainer = step_trainer(step, loader, optimizer, schedule, epochs=1, epoch_length=steps)
    found: list[float] = []

    def keep(engine: Engine) -> None:
        found.append(cast(dict[str, float], engine.state.output)["accuracy"])

    trainer.add_event_handler(Events.ITERATION_COMPLETED, keep)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trainer.run()
    return float(np.mean(found[-max(1, steps // 10) :]))


@torch.inference_mode()
def _probabilities(network: nn.Module, images: Tensor) -> Any:
    network.eval()
    return torch.cat([network(part).softmax(1) for part in torch.split(images, _AT_ONCE)]).numpy()


def hold_to_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Write down how a folder's rows are made, or check it against what stands there.

    Args:
        path: `plan.json` of the folder.
        plan: plain values.

    Raises:
        DataError: the folder holds rows of another plan.
    """
    text = json.dumps(plan, indent=1, sort_keys=True) + "\n"
    if not path.is_file():
        write_bytes(path, text.encode())
    elif path.read_text(encoding="utf-8") != text:
        raise DataError(
            f"{path}: its rows were made by another plan than the one asked for. Give the same options, or another"
            " folder with --out."
        )


def read_rows(path: Path) -> list[StudyRow]:
    """Rows of a JSON lines file; none where it is missing."""
    if not path.is_file():
        return []
    return [StudyRow(**json.loads(text)) for text in path.read_text(encoding="utf-8").splitlines() if text]


def append_rows(path: Path, rows: Sequence[StudyRow]) -> None:
    """Add the rows of a whole run to a JSON lines file, in one write, so that several processes may share it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(asdict(row)) + "\n" for row in rows))
