# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A whole training run of the self-prompting model: data, network, engine, checkpoints, resume, model file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler, ProgressBar
from monai.utils import set_determinism
from torch import nn

from monai_effsam.checkpoints import load_model, save_model
from monai_effsam.checkpoints.transfer import transfer_weights
from monai_effsam.data.balanced import BalancedBatches, hold_out, load_slices
from monai_effsam.data.sets import Case
from monai_effsam.engines.calibration import calibrate_presence
from monai_effsam.engines.self_prompting import (
    Schedule,
    SelfPromptingStep,
    build_optimizer,
    self_prompting_trainer,
)
from monai_effsam.errors import UsageError, WeightsError
from monai_effsam.networks.encoders.timm_encoder import TimmEncoder, fold_batch_norm
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import TARGETS, Target

__all__ = ["Recipe", "build_network", "train"]

log = logging.getLogger(__name__)

SIZES = {
    "endoscopy": 320,
    "ultrasound": 256,
    "dermoscopy": 256,
    "xray": 256,
    "fundus": 576,
    "ct": 288,
    "mr": 224,
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training gives, apart from the data; stored with the model.

    Args:
        encoder: options of `build_encoder`.
        decoder: options of `QueryDecoupledDecoder`.
        sizes: model size a modality [px].
        mean: of the input normalisation.
        std: of the input normalisation.
        weights: share of each set or stratum in the batches; empty for square roots of their sizes.
        epochs: to train.
        epoch_length: steps of each.
        batch_area: pixels a batch (of one process).
        rate: learning rate of new layers.
        trunk_rate: of the pretrained trunk.
        weight_decay: of AdamW.
        warm_share: share of the steps at `warm_scale` of the model size.
        warm_scale: that scale.
        ema: momentum of the running average of the weights that is shipped.
        held_out: share of the training groups that calibrates presence.
        seed: of everything random.
    """

    encoder: dict[str, Any] = field(
        default_factory=lambda: {"name": "timm", "model": "tf_efficientnet_lite0"}
    )
    decoder: dict[str, Any] = field(default_factory=lambda: {"mlp_dim": 1024, "hyper_dim": 128})
    sizes: dict[str, int] = field(default_factory=lambda: dict(SIZES))
    mean: tuple[float, float, float] = (127 / 255, 127 / 255, 127 / 255)
    std: tuple[float, float, float] = (128 / 255, 128 / 255, 128 / 255)
    weights: dict[str, float] = field(default_factory=dict)
    epochs: int = 35
    epoch_length: int = 100
    batch_area: int = 8 * 320 * 320
    rate: float = 1e-3
    trunk_rate: float = 3e-4
    weight_decay: float = 0.01
    warm_share: float = 0.35
    warm_scale: float = 0.75
    ema: float = 0.003
    held_out: float = 0.05
    seed: int = 0

    def specs(self) -> dict[str, ImageSpec]:
        """An `ImageSpec` for each modality."""
        return {m: ImageSpec(size, mean=self.mean, std=self.std) for m, size in self.sizes.items()}

    def network_options(self) -> dict[str, Any]:
        """Keyword arguments of `EspMedSam`, without the targets."""
        return {"encoder": dict(self.encoder), "decoder": dict(self.decoder)}


def build_network(recipe: Recipe, targets: Sequence[Target] = TARGETS, init: Path | None = None) -> EspMedSam:
    """The recipe's network.

    Args:
        recipe: what to build.
        targets: the target table.
        init: weights to start from: a model of ours (`model.pt`, run or bundle), or a timm trunk (`.safetensors`).

    Raises:
        WeightsError: `init` does not fit.
    """
    if init is not None and init.suffix == ".safetensors":
        network = EspMedSam({**recipe.encoder, "fold": False}, targets, decoder=recipe.decoder)
        _load_trunk(network, init)
        return network
    network = EspMedSam(**recipe.network_options(), targets=targets)
    if init is not None:
        source = load_model(init)
        state, missed = transfer_weights(
            network.state_dict(), network.targets, source.network.state_dict(), source.targets
        )
        network.load_state_dict(state)
        log.info("%s: all but %d of %d tensors taken", init, len(missed), len(state))
    return network


def _load_trunk(network: EspMedSam, file: Path) -> None:
    from safetensors.torch import load_file

    encoder = network.encoder
    if not isinstance(encoder, TimmEncoder):
        raise WeightsError(f"{file}: a timm trunk does not fit the encoder {type(encoder).__name__}.")
    result = encoder.trunk.load_state_dict(load_file(file), strict=False)
    lacking = [k for k in result.missing_keys if not k.endswith("num_batches_tracked")]
    if lacking:
        raise WeightsError(f"{file}: lacks {len(lacking)} tensors of the trunk, such as {lacking[:3]}.")
    fold_batch_norm(encoder.trunk)


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
    rank, ranks = idist.get_rank(), idist.get_world_size()
    out.mkdir(parents=True, exist_ok=True)
    set_determinism(recipe.seed + rank)
    specs = recipe.specs()
    fit, held = hold_out(cases, recipe.held_out)
    slices = load_slices(fit, specs, targets, known_from=cases)
    steps = recipe.epochs * recipe.epoch_length
    network = build_network(recipe, targets, init).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = BalancedBatches(
        slices,
        specs,
        network.modalities,
        weights=recipe.weights,
        batch_area=recipe.batch_area,
        epoch_length=recipe.epoch_length,
        seed=recipe.seed,
        rank=rank,
        warm_steps=round(steps * recipe.warm_share),
        warm_scale=recipe.warm_scale,
    )
    schedule = Schedule(steps, min(100, steps // 5), recipe.rate, recipe.trunk_rate)
    optimizer = build_optimizer(network, schedule, recipe.weight_decay)
    step: nn.Module = SelfPromptingStep(network, seed=recipe.seed)
    if ranks > 1:
        step = nn.parallel.DistributedDataParallel(step, find_unused_parameters=True)
    trainer = self_prompting_trainer(
        step,
        loader,
        optimizer,
        schedule,
        epochs=recipe.epochs,
        epoch_length=recipe.epoch_length,
        device=device,
    )
    average = EMAHandler(network, momentum=recipe.ema)
    average.attach(trainer, event=Events.ITERATION_COMPLETED)
    keeper = _Keeper(out, recipe, network, average.ema_model, optimizer, resume)
    keeper.attach(trainer, loader, rank)
    if trainer.state.epoch < recipe.epochs:
        trainer.run()
    shipped = average.ema_model
    if rank == 0:
        fitted = calibrate_presence(shipped, load_slices(held, specs, targets, known_from=cases), specs)
        content = {
            "recipe": asdict(recipe),
            "calibration": fitted,
            "data": _summary(fit, held),
            **(card or {}),
        }
        save_model(out / "model.pt", shipped, specs, recipe.network_options(), content)
    idist.barrier()
    return out / "model.pt"


def _summary(fit: Sequence[Case], held: Sequence[Case]) -> dict[str, Any]:
    names = dict.fromkeys(c.set_name for c in fit)
    return {
        n: {
            "trained": sum(c.set_name == n for c in fit),
            "calibrated": sum(c.set_name == n for c in held),
        }
        for n in names
    }


class _Keeper:
    """Checkpoints, the loss log and the progress bar of a run."""

    def __init__(
        self,
        out: Path,
        recipe: Recipe,
        network: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
        resume: bool,
    ) -> None:
        self.file, self.log_file = out / "checkpoint.pt", out / "losses.jsonl"
        self.parts = {"network": network, "average": average, "optimizer": optimizer}
        self.recipe = json.dumps(asdict(recipe), sort_keys=True)
        self.epoch = 0
        self.resume = resume and self.file.is_file()

    def attach(self, trainer: Engine, loader: BalancedBatches, rank: int) -> None:
        """Restore if asked to, then keep up with the trainer."""
        if self.resume:
            self._restore(trainer)
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda e: setattr(loader, "epoch", e.state.epoch - 1))
        if rank > 0:
            return
        self._cut_log(trainer.state.iteration)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._log)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        ProgressBar(persist=True).attach(trainer, output_transform=lambda o: {"loss": o["loss"]})

    def _restore(self, trainer: Engine) -> None:
        state = torch.load(self.file, map_location="cpu", weights_only=True)
        if state["recipe"] != self.recipe:
            raise UsageError(
                f"{self.file}: was made with another recipe. Choose a new --out, or the same options."
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])  # type: ignore[attr-defined]
        trainer.state.epoch = state["epoch"]
        trainer.state.iteration = state["iteration"]
        log.info("continuing after epoch %d", state["epoch"])

    def _save(self, trainer: Engine) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}  # type: ignore[attr-defined]
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

    def _cut_log(self, iteration: int) -> None:
        """Drop lines of steps that will be done again."""
        lines = []
        if iteration and self.log_file.is_file():
            lines = [
                ln for ln in self.log_file.read_text().splitlines() if json.loads(ln)["step"] <= iteration
            ]
        self.log_file.write_text("".join(f"{line}\n" for line in lines))

    def _log(self, trainer: Engine) -> None:
        row = {"step": trainer.state.iteration, **{k: round(v, 6) for k, v in trainer.state.output.items()}}
        with self.log_file.open("a") as file:
            file.write(json.dumps(row) + "\n")
