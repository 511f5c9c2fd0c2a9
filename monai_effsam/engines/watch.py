# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""An eye on held-out pictures while a stage trains: the best weights are kept, and a stage that is done is stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor, nn

__all__ = ["HeldOutWatch"]

log = logging.getLogger(__name__)


class HeldOutWatch:
    """Measures a module after each epoch; a MONAI handler.

    The weights of the best epoch are kept, those before the first step among them: a stage can do harm.

    Args:
        module: whose weights are measured and kept; under `RunKeeper` the averaged ones.
        measure: gives numbers of the module; None to take the last weights unseen.
        key: of the number that decides.
        file: JSON lines of all numbers, one an epoch; 0 is before the first step. None for no file.
        smaller: whether smaller is better.
        patience: epochs without a better one after which training ends.
    """

    def __init__(
        self,
        module: nn.Module,
        measure: Callable[[], Mapping[str, float]] | None,
        key: str,
        file: Path | None,
        *,
        smaller: bool = True,
        patience: int = 5,
    ) -> None:
        self.module, self.measure, self.key, self.file = module, measure, key, file
        self.smaller, self.patience = smaller, patience
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}

    def attach(self, engine: Engine) -> None:
        """Measure before the first step and after every epoch."""
        engine.add_event_handler(Events.STARTED, self._before)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept; of equal ones the first."""
        sign = 1 if self.smaller else -1
        values = [sign * row[self.key] for row in self.history]
        return values.index(min(values)) if values else 0

    @property
    def finished(self) -> bool:
        """Whether patience is at its end."""
        return len(self.history) - 1 - self.best_epoch >= self.patience

    def __call__(self, engine: Engine) -> None:
        """Measure now."""
        self._look()
        if self.measure is not None and self.finished:
            log.info("%s: no better for %d epochs, done", self.file and self.file.parent.name, self.patience)
            engine.terminate()

    def _before(self, engine: Engine) -> None:
        """Weights that a resumed run brings along were measured when they were made."""
        if not self.history and self.measure is not None:
            self._look()

    def _look(self) -> None:
        if self.measure is None:
            self.best = _copied(self.module)
            return
        self.history.append(dict(self.measure()))
        if self.best_epoch == len(self.history) - 1:
            self.best = _copied(self.module)
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"epoch": i, **{k: round(v, 6) for k, v in r.items()}} for i, r in enumerate(self.history)]
        self.file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"history": self.history, "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From the checkpoint."""
        self.history, self.best = list(state["history"]), dict(state["best"])


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone() for k, v in module.state_dict().items()}
