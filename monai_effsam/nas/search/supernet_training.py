# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A supernet in training: weights on some pictures, choices on others, by turns, under a budget."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, Self

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from monai_effsam.errors import UsageError
from monai_effsam.nas.search.schedule import DifferentiableSettings, SearchMoment
from monai_effsam.nas.supernet import ExpectedCost, SearchSupernet, draw_lots

__all__ = ["SearchBatch", "SearchBatches", "SupernetTraining", "choice_entropy", "collapse_signs"]


class SearchBatch(Protocol):
    """A batch that a supernet is trained on."""

    @property
    def image(self) -> Tensor:
        """(B, 3, H, W)."""

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""


class SearchBatches(Protocol):
    """Batches that are a pure function of the epoch, which is set before each; a process sees its own part of each."""

    epoch: int

    def __len__(self) -> int:
        """Batches an epoch."""

    def __iter__(self) -> Iterator[Any]:
        """Those of the current epoch."""


class SupernetTraining:
    """First-order bi-level search of one frame; a MONAI trainer that can be stopped after any epoch and continued.

    In each step, once the warm-up is over, the logits learn on a batch of `choices` (loss plus what the mean cost is
    over the budget), then the weights of what is drawn on a batch of `weights`. All draws come from (seed, step), the
    same in every process, and gradients are means over the processes, as are the statistics of the norms: n processes
    do what one does with n times the batch.

    Args:
        supernet: to be searched; moved to the device.
        cost: of its space.
        budget: in the cost's unit.
        weights: batches to train weights on.
        choices: batches of other patients or sequences, to choose on.
        loss: (embedding, batch) -> mean over the batch's images.
        settings: constants.
        folder: for `checkpoint.pt` and `search.jsonl`; None for neither.
        device: to train on.
        on_step: told of the row of each step.
    """

    def __init__(  # noqa: PLR0913  the parts of a search
        self,
        supernet: SearchSupernet,
        cost: ExpectedCost,
        budget: float,
        weights: SearchBatches,
        choices: SearchBatches,
        loss: Callable[[Tensor, Any], Tensor],
        settings: DifferentiableSettings | None = None,
        *,
        folder: Path | None = None,
        device: torch.device | str = "cpu",
        on_step: Callable[[dict[str, float]], object] | None = None,
    ) -> None:
        self.supernet, self.cost, self.budget = supernet.to(device), cost, budget
        self.weights, self.choices, self.loss = weights, choices, loss
        self.settings = settings = settings or DifferentiableSettings()
        self.folder, self.device, self.on_step = folder, torch.device(device), on_step
        self.steps = settings.epochs * len(weights)
        self.weight_list = list(supernet.weight_parameters())
        self.logit_list = list(supernet.arch_parameters())
        self.weight_optimizer = torch.optim.AdamW(
            self.weight_list, lr=settings.rate, weight_decay=settings.weight_decay
        )
        self.logit_optimizer = torch.optim.Adam(
            self.logit_list, lr=settings.choice_rate, betas=(0.5, 0.999), weight_decay=0.0
        )
        self._stream: Iterator[Any] = iter(())

    def run(self, *, resume: bool = False) -> None:
        """Train what is left of it.

        Raises:
            UsageError: the folder holds a search with other settings.
        """
        trainer = SupervisedTrainer(
            device=self.device,
            max_epochs=self.settings.epochs,
            train_data_loader=self.weights,
            network=self.supernet,
            optimizer=self.weight_optimizer,
            loss_function=nn.Identity(),
            epoch_length=len(self.weights),
            iteration_update=self._iterate,
        )
        if resume:
            self._restore(trainer)
        trainer.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        if self.folder is not None and _rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._cut_log(trainer.state.iteration)
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self._log)
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        if self.on_step is not None:
            trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: self.on_step(e.state.output))  # type: ignore[misc]
        if trainer.state.epoch < self.settings.epochs:
            trainer.run()

    def _begin_epoch(self, trainer: Engine) -> None:
        self.weights.epoch = trainer.state.epoch - 1
        self._stream = _endless(self.choices, trainer.state.epoch - 1)

    def _iterate(self, engine: Engine, batch: Any) -> dict[str, float]:
        step = engine.state.iteration - 1
        moment = self.settings.at(step, self.steps)
        generator = torch.Generator().manual_seed(self.settings.seed * 2**32 + step)
        guards = self.supernet.train().guards
        guards.auxiliary, guards.skip_dropout = moment.auxiliary, moment.skip_dropout
        guards.generator = generator
        row = {"step": step + 1, "epoch": engine.state.epoch, "temperature": moment.temperature}
        if moment.choosing:
            row |= self._choose(next(self._stream).to(self.device), moment, generator)
        row |= self._learn(batch.to(self.device), moment, generator)
        with torch.no_grad():
            found = self.supernet.probabilities()
            row |= {"cost": float(self.cost(found)), "entropy": choice_entropy(self.supernet)}
        guards.generator = None
        return row

    def _choose(
        self, batch: SearchBatch, moment: SearchMoment, generator: torch.Generator
    ) -> dict[str, float]:
        """A step of the logits; the weights stay, and so do their gradients' buffers."""
        lots = draw_lots(
            self.supernet.choice_logits(), moment.temperature, generator, self.settings.lots, learning=True
        )
        loss = self.loss(self.supernet(batch.image, lots), batch)
        # soft probabilities, whatever is drawn: those of a hard draw would make the cost noisy
        excess = self.cost(self.supernet.probabilities()) / self.budget - 1
        total = loss + self.settings.cost_weight * (excess.relu() if self.settings.hinge else excess)
        gradients = torch.autograd.grad(total, self.logit_list, allow_unused=True)
        self._apply(self.logit_list, gradients, self.logit_optimizer)
        return {"choice_loss": float(_mean(loss.detach())), "excess": float(excess.detach())}

    def _learn(
        self, batch: SearchBatch, moment: SearchMoment, generator: torch.Generator
    ) -> dict[str, float]:
        """A step of the weights of what is drawn."""
        for group in self.weight_optimizer.param_groups:
            group["lr"] = moment.rate
        lots = draw_lots(
            self.supernet.choice_logits(), moment.temperature, generator, self.settings.lots, learning=False
        )
        loss = self.loss(self.supernet(batch.image, lots), batch)
        gradients = torch.autograd.grad(loss, self.weight_list, allow_unused=True)
        self._apply(self.weight_list, gradients, self.weight_optimizer)
        return {"loss": float(_mean(loss.detach()))}

    def _apply(
        self,
        parameters: Sequence[nn.Parameter],
        gradients: Iterable[Tensor | None],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Mean gradients over the processes, clipped, and one step; what was not drawn stays as it is."""
        optimizer.zero_grad(set_to_none=True)
        used = []
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient
                used.append(parameter)
        _average([p.grad for p in used if p.grad is not None])
        nn.utils.clip_grad_norm_(used, self.settings.gradient_limit)
        optimizer.step()

    @property
    def _identity(self) -> str:
        space = [list(map(str, choice.options)) for choice in self.supernet.space.choices]
        return json.dumps([asdict(self.settings), self.budget, len(self.weights), space], sort_keys=True)

    def _save(self, trainer: Engine) -> None:
        assert self.folder is not None
        file = self.folder / "checkpoint.pt"
        part = file.with_name(file.name + ".part")
        state = {
            "supernet": self.supernet.state_dict(),
            "weights": self.weight_optimizer.state_dict(),
            "logits": self.logit_optimizer.state_dict(),
            "epoch": trainer.state.epoch,
            "iteration": trainer.state.iteration,
            "identity": self._identity,
        }
        torch.save(state, part)
        part.replace(file)

    def _restore(self, trainer: Engine) -> None:
        file = None if self.folder is None else self.folder / "checkpoint.pt"
        if file is None or not file.is_file():
            return
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["identity"] != self._identity:
            raise UsageError(
                f"{file}: is of a search with other settings, expected those to be continued. Give the same options, "
                "or another folder."
            )
        self.supernet.load_state_dict(state["supernet"])
        self.weight_optimizer.load_state_dict(state["weights"])
        self.logit_optimizer.load_state_dict(state["logits"])
        trainer.state.epoch, trainer.state.iteration = state["epoch"], state["iteration"]

    def _log(self, trainer: Engine) -> None:
        assert self.folder is not None
        output: Any = trainer.state.output
        row = {name: round(value, 6) for name, value in output.items()}
        with (self.folder / "search.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _cut_log(self, iteration: int) -> None:
        """Drop rows of steps that will be done again."""
        assert self.folder is not None
        file = self.folder / "search.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if iteration and file.is_file() else []
        kept = [line for line in lines if json.loads(line)["step"] <= iteration]
        file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def choice_entropy(supernet: SearchSupernet) -> float:
    """Mean over the choices with several options of H(p) / log K: 1 knows nothing, 0 is sure."""
    found = [p.detach() for p in supernet.probabilities().values() if len(p) > 1]
    each = [float(-(p * p.clamp(min=1e-12).log()).sum()) / math.log(len(p)) for p in found]
    return sum(each) / max(1, len(each))


def collapse_signs(supernet: SearchSupernet) -> list[str]:
    """What looks like a failed search: nothing learnt, or nearly all slots skipped."""
    signs = []
    if (entropy := choice_entropy(supernet)) > 0.95:
        signs.append(f"the choices are as open as at the start (entropy {entropy:.2f}): search longer")
    slots = {n: p for n, p in supernet.probabilities().items() if ".op" in n}
    skipped = sum(int(p.argmax()) == len(p) - 1 for p in slots.values())
    if skipped > len(slots) / 2:
        signs.append(f"{skipped} of {len(slots)} slots choose skip: look at the budget and the guards")
    return signs


def _endless(batches: SearchBatches, epoch: int) -> Iterator[Any]:
    """Batches for the choices, as many as an epoch of the weights wants; which ones depends on the epoch alone."""
    turn = 0
    while True:
        batches.epoch = epoch * 1000 + turn
        yield from batches
        turn += 1


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _mean(value: Tensor) -> Tensor:
    """A scalar's mean over the processes."""
    value = value.clone()
    _average([value])
    return value


def _average(tensors: Sequence[Tensor]) -> None:
    """Means over the processes, in place, in one message."""
    if not tensors or not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
