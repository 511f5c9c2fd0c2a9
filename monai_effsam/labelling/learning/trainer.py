# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Learning as a task of MONAI Label: started and stopped from the viewers, with a bar that moves."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.train import TrainTask

from monai_effsam.errors import UsageError
from monai_effsam.labelling.durable import write_durably
from monai_effsam.labelling.learning.labelled import labelled_items

__all__ = ["FineTuning"]

log = logging.getLogger(__name__)

PARTS = {"decoder": False, "controllers and decoder": True}
"""What the viewers offer to be trained -> whether controllers are."""

_STATS = "train_stats.json"


class FineTuning(TrainTask):
    """Fine-tunes the self-prompting model on the submitted labels, in minutes on a CPU.

    It may run in another process than the server: numbers and models meet on the disk. Who serves asks
    `publication.current(models)` which model is in use.

    Args:
        base: the model that the app started from.
        models: folder of the published versions; `train_stats.json` lies there too.
        modality: of images that do not tell it.
        targets: names of those that are asked for when models are judged; all by default.
    """

    def __init__(
        self, base: Path, models: Path, *, modality: str | None = None, targets: Collection[str] = ()
    ) -> None:
        super().__init__("Learn from the submitted labels (self-prompter and decoder; minutes on a CPU)")
        self.base, self.models, self.modality, self.targets = base, models, modality, targets
        self._cancel = threading.Event()

    def config(self) -> dict[str, Any]:
        """What a user may change; a list is a choice, its first entry the default."""
        return {
            "train": list(PARTS),
            "epochs": 8,
            "epoch_length": 20,
            "batch": 4,
            "rate": 3e-4,
            "held_share": 0.2,
            "seed": 0,
        }

    def stats(self) -> dict[str, Any]:
        """Where the training is, or how the last one ended, as the viewers' bars read it."""
        try:
            return dict(json.loads((self.models / _STATS).read_bytes()))
        except (OSError, ValueError):
            return {}

    def cancel(self) -> None:
        """Let the training of this process end after its epoch; nothing is published."""
        self._cancel.set()

    def due(self, datastore: Any, every: int) -> bool:
        """Whether enough labels came since the last training.

        Args:
            datastore: with the labels.
            every: so many labels make a training due; 0 for never.
        """
        seen = int(self.stats().get("labels", 0))
        return every > 0 and len(datastore.get_labeled_images()) - seen >= every

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Train on all final labels.

        Args:
            request: of `config`, each optional; other keys are those of the server and pass.
            datastore: with the labels.

        Returns:
            `published` (the version's name or None), `dice_before`, `dice`, `trained`, `held`, `seconds`.

        Raises:
            UsageError: an option that is none.
            DataError: too few labels that can be used.
        """
        from monai_effsam.labelling.learning.finetune import learn  # brings the training engines

        learning = _learning(request)
        self._cancel.clear()
        items, started = labelled_items(datastore.datalist()), time.time()
        facts: dict[str, Any] = {"start_ts": int(started), "labels": len(items)}

        def progress(epoch: int, best: float) -> bool:
            self._tell({**facts, **_bar(epoch, learning.epochs, best, started), "state": "running"})
            return not self._cancel.is_set()

        progress(0, 0.0)
        try:
            done = learn(
                items,
                self.base,
                self.models,
                modality=self.modality,
                targets=self.targets,
                learning=learning,
                progress=progress,
            )
        except BaseException:
            self._tell({**self.stats(), **facts, "state": "failed"})
            raise
        state = "cancelled" if self._cancel.is_set() else "published" if done.published else "kept"
        result = {
            "published": done.published.parent.name if done.published else None,
            "dice_before": round(done.before, 4),
            "dice": round(done.after, 4),
            "trained": done.trained,
            "held": done.held,
            "seconds": done.seconds,
        }
        end = _bar(learning.epochs, learning.epochs, done.after, started)
        self._tell({**facts, **end, **result, "state": state})
        return result

    def _tell(self, stats: Mapping[str, Any]) -> None:
        write_durably(self.models / _STATS, json.dumps(stats).encode())


def _learning(request: Mapping[str, Any]) -> Any:
    from monai_effsam.labelling.learning.finetune import Learning

    given = {k: v[0] if isinstance(v, list) and v else v for k, v in request.items()}
    parts = given.get("train", next(iter(PARTS)))
    if parts not in PARTS:
        raise UsageError(f"train: is {str(parts)[:60]!r}, expected one of {', '.join(PARTS)}. Choose one.")
    kinds = {
        "epochs": int,
        "epoch_length": int,
        "batch": int,
        "held_share": float,
        "rate": float,
        "seed": int,
    }
    values: dict[str, Any] = {}
    for name in kinds.keys() & given.keys():
        try:
            values[name] = kinds[name](given[name])
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"train: {name} is {str(given[name])[:60]!r}, expected a number. Change it."
            ) from error
    return Learning(controllers=PARTS[parts], **values)


def _bar(epoch: int, epochs: int, best: float, started: float) -> dict[str, Any]:
    """What the viewers read."""
    spent = str(timedelta(seconds=int(time.time() - started)))
    return {"epoch": epoch, "total_epochs": epochs, "best_metric": round(best, 4), "total_time": spent}
