# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a training run leaves on disk while it goes on, so that it can be stopped, looked at and continued."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler, ProgressBar, TensorboardLogger
from torch import nn

from monai_effsam.errors import UsageError

__all__ = ["RunKeeper"]

log = logging.getLogger(__name__)


_Network = TypeVar("_Network", bound=nn.Module)


class _Recipe(Protocol):
    """A frozen dataclass of plain values that decides what a run gives."""

    @property
    def ema(self) -> float:
        """Momentum of the running average of the weights."""


class _Batches(Protocol):
    """Batches that are a pure function of the epoch, which is set before each."""

    epoch: int


class RunKeeper(Generic[_Network]):
    """Running average of the weights, checkpoints, loss log, curves and progress bar of a run.

    Args:
        out: run folder: `checkpoint.pt`, `losses.jsonl`, `tensorboard`.
        recipe: of the run; another one does not resume.
        network: in training.
        resume: continue from `checkpoint.pt` if it is there.
    """

    def __init__(
        self,
        out: Path | str,
        recipe: _Recipe,
        network: _Network,
        resume: bool = False,
    ) -> None:
        self.file, self.log_file = Path(out) / "checkpoint.pt", Path(out) / "losses.jsonl"
        self.network = network
        self.ema = EMAHandler(network, momentum=recipe.ema)
        self.parts: dict[str, Any] = {"network": network, "average": self.ema.ema_model}
        self.recipe = json.dumps(asdict(cast(Any, recipe)), sort_keys=True)
        self.resume = resume and self.file.is_file()

    @property
    def average(self) -> _Network:
        """The network with the averaged weights: what is shipped."""
        return cast(_Network, self.ema.ema_model)

    def attach(self, trainer: Engine, loader: _Batches, optimizer: torch.optim.Optimizer) -> None:
        """Restore if asked to, then keep up with the trainer; only the first of several processes writes."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.parts["optimizer"] = optimizer
        trainer.add_event_handler(Events.STARTED, self._start_average)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._warm_average)
        self.ema.attach(trainer, event=Events.ITERATION_COMPLETED)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._hold_frozen)
        if self.resume:
            self._restore(trainer)
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda e: setattr(loader, "epoch", e.state.epoch - 1))
        if idist.get_rank() > 0:
            return
        self._cut_log(trainer.state.iteration)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._log)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        self._attach_tensorboard(trainer)
        ProgressBar(persist=True).attach(trainer, output_transform=lambda o: {"loss": o["loss"]})

    def _start_average(self, trainer: Engine) -> None:
        """Begin from the weights that the network has now: a handler may have loaded others by then."""
        if trainer.state.iteration == 0:
            self.average.load_state_dict(self.network.state_dict())

    def _warm_average(self, trainer: Engine) -> None:
        """A young average forgets faster, or the random start would still be in it after a short training."""
        trainer.state.ema_momentum = max(self.ema.momentum, 1 / (trainer.state.iteration + 10))  # type: ignore[attr-defined]

    def _hold_frozen(self, trainer: Engine) -> None:
        """The average of a constant is not quite the constant in floating point: what is frozen is copied."""
        for mean, parameter in zip(self.average.parameters(), self.network.parameters(), strict=True):
            if not parameter.requires_grad:
                mean.data.copy_(parameter.data)

    def _restore(self, trainer: Engine) -> None:
        state = torch.load(self.file, map_location="cpu", weights_only=True)
        if state["recipe"] != self.recipe:
            raise UsageError(
                f"{self.file}: was made with another recipe. Choose a new --out, or the same options."
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        trainer.state.epoch = state["epoch"]
        trainer.state.iteration = state["iteration"]
        log.info("continuing after epoch %d", state["epoch"])

    def _save(self, trainer: Engine) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        part_file = self.file.with_name(self.file.name + ".part")
        torch.save(
            {
                **state,
                "recipe": self.recipe,
                "epoch": trainer.state.epoch,
                "iteration": trainer.state.iteration,
            },
            part_file,
        )
        part_file.replace(self.file)

    def _attach_tensorboard(self, trainer: Engine) -> None:
        """Curves for TensorBoard in `out/tensorboard`, where it is installed."""
        try:
            logger = TensorboardLogger(
                log_dir=self.file.parent / "tensorboard", purge_step=trainer.state.iteration
            )
        except ModuleNotFoundError:
            log.info("tensorboard is not installed, no curves: pip install 'monai-effsam[train]'")
            return
        logger.attach_output_handler(
            trainer, Events.ITERATION_COMPLETED, tag="train", output_transform=lambda terms: terms
        )
        trainer.add_event_handler(Events.COMPLETED, logger.close)

    def _cut_log(self, iteration: int) -> None:
        """Drop lines of steps that will be done again."""
        lines = []
        if iteration and self.log_file.is_file():
            lines = [
                ln for ln in self.log_file.read_text().splitlines() if json.loads(ln)["step"] <= iteration
            ]
        self.log_file.write_text("".join(f"{line}\n" for line in lines))

    def _log(self, trainer: Engine) -> None:
        terms = cast(dict[str, float], trainer.state.output)
        row = {"step": trainer.state.iteration, **{k: round(v, 6) for k, v in terms.items()}}
        with self.log_file.open("a") as file:
            file.write(json.dumps(row) + "\n")
