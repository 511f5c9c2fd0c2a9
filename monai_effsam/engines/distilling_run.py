# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A whole distillation: the stages one after the other, each of which can be stopped and continued."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from monai.utils import set_determinism
from torch import nn

from monai_effsam.checkpoints import save_model
from monai_effsam.data.distilling import DistillationBatches, ViewBatch
from monai_effsam.data.io import write_bytes
from monai_effsam.data.pictures import Pictures
from monai_effsam.engines.decoder_tuning import TuningStep, prompted_dice
from monai_effsam.engines.distillation import DistillationStep, held_out_errors
from monai_effsam.engines.distilling_recipe import DistillationRecipe, StageName
from monai_effsam.engines.distilling_terms import build_terms, kept_maps
from monai_effsam.engines.stage import Stage, train_stage
from monai_effsam.engines.students import Student
from monai_effsam.engines.teacher import Filled, Teacher, state_sha256
from monai_effsam.errors import UsageError
from monai_effsam.losses.prompted import PromptedMaskLoss
from monai_effsam.networks.encoders import ImageEncoder
from monai_effsam.networks.nets import PromptableSam
from monai_effsam.specs import ImageSpec, spec_of
from monai_effsam.targets import TARGETS, Target

__all__ = ["Distillation"]

MOST_WATCHED = 200
"""Pictures that are measured after each epoch; of more every n-th is."""


class Distillation:
    """One run: a student, its teacher, the pictures and the folder that all goes to.

    Args:
        recipe: what to do.
        network: the student.
        options: that build it again, of `build_student`.
        student: its input.
        teacher: with a cache or without.
        pictures: to learn from.
        perceptual: of `build_perceptual`.
        out: run folder: `recipe.json`, a folder a stage, then `model.pt`.
        targets: of the labels; they name mask values.
        embedding_loss: the first term of the encoder's stage; mean squared error by default.
        mask_loss: of the stages on labels.
        resume: go on where an earlier run of the same recipe was.
        device: to train on.
    """

    def __init__(  # noqa: PLR0913  the parts of a run
        self,
        recipe: DistillationRecipe,
        network: PromptableSam,
        options: Mapping[str, Any],
        student: Student,
        teacher: Teacher,
        pictures: Pictures,
        perceptual: nn.Module | None,
        out: Path,
        *,
        targets: Sequence[Target] = TARGETS,
        embedding_loss: nn.Module | None = None,
        mask_loss: PromptedMaskLoss | None = None,
        resume: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.targets, self.embedding_loss, self.mask_loss = targets, embedding_loss, mask_loss
        self.recipe, self.options, self.teacher, self.pictures = recipe, dict(options), teacher, pictures
        self.network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.specs: Mapping[str, ImageSpec] = student.specs(teacher.specs)
        self.perceptual = None if perceptual is None else perceptual.to(device)
        terms = build_terms(network, teacher.network, spec_of(self.specs), recipe)
        self.terms = None if terms is None else terms.to(device)
        self.out, self.resume, self.device = out, resume, device
        self.train, self.held = pictures.held_out(recipe.held_out, recipe.seed)
        self.watched = self.held[:: -(-len(self.held) // MOST_WATCHED) or 1]

    def fill(self, progress: Callable[[Sequence[Sequence[int]]], Iterable[Sequence[int]]] = iter) -> Filled:
        """Let the teacher look at every view that training will show and that its cache lacks.

        Args:
            progress: see `Teacher.fill`.

        Raises:
            UsageError: the teacher has no cache.
            DataError: the cache cannot take more; what is there stays.
        """
        recipe = self.recipe
        trained = self.teacher.fill(
            self.pictures, rows=self.train, views=recipe.views, seed=recipe.view_seed, progress=progress
        )
        watched = self.teacher.fill(
            self.pictures, rows=self.watched, seed=recipe.view_seed, progress=progress
        )
        return Filled(trained.computed + watched.computed, trained.found + watched.found)

    def run(self, card: Mapping[str, Any] | None = None) -> Path:
        """Every stage that is not done yet; writes and returns `out/model.pt`.

        Args:
            card: further entries of `model.json`.

        Raises:
            UsageError: the folder holds a run of another recipe.
            DataError: a cache cannot take more; what is done stays done.
        """
        set_determinism(self.recipe.seed)
        self._begin()
        stages = {"encoder": self._encoder, "decoder": self._decoder, "joint": self._joint}
        content = {
            "recipe": asdict(self.recipe),
            "data": self._data(),
            "stages": {name: stages[name]() for name in self.recipe.stages},
            **(card or {}),
        }
        path = self.out / "model.pt"
        return save_model(path, self.network, self.specs, self.options, content, targets=self.targets)

    def _data(self) -> dict[str, dict[str, int]]:
        """For each set, how many pictures were trained on and how many held out; for the model card."""
        trained, held = self.pictures.sets(self.train), self.pictures.sets(self.held)
        names = dict.fromkeys([*trained, *held])
        return {name: {"trained": trained.get(name, 0), "watched": held.get(name, 0)} for name in names}

    def _begin(self) -> None:
        """Leave the recipe in the run folder, and nothing of another one."""
        file = self.out / "recipe.json"
        content = json.dumps(asdict(self.recipe), indent=1) + "\n"
        theirs = json.loads(file.read_text(encoding="utf-8")) if self.resume and file.is_file() else None
        if theirs is not None and theirs != (ours := json.loads(content)):
            other = sorted(k for k in theirs.keys() | ours.keys() if theirs.get(k) != ours.get(k))
            raise UsageError(
                f"{file}: is another recipe (other {', '.join(other)}), expected that of the run to continue. "
                "Give the same options, or another --out."
            )
        if not self.resume:
            for stage in get_args(StageName):
                for name in ("done.json", "weights.pt", "checkpoint.pt"):
                    (self.out / stage / name).unlink(missing_ok=True)
        write_bytes(file, content.encode())

    def batches(
        self,
        source: Teacher | None,
        *,
        watched: bool = False,
        images: bool = True,
        labels: bool = False,
        saliency: str | None = None,
    ) -> DistillationBatches:
        """Batches of the pictures to train on, or of those to watch.

        Args:
            source: of embeddings; None for none.
            watched: those to watch, each as it is, in order.
            images: whether the student's input is wanted.
            labels: whether labels are wanted.
            saliency: name of the source's map that is wanted.
        """
        recipe = self.recipe
        return DistillationBatches(
            self.pictures,
            self.specs,
            source,
            rows=self.watched if watched else self.train,
            views=recipe.views,
            batch=recipe.batch,
            images=images,
            labels=labels,
            shuffle=not watched,
            seed=recipe.seed,
            view_seed=recipe.view_seed,
            saliency=saliency,
        )

    def encoder_step(self, encoder: ImageEncoder) -> DistillationStep:
        """The first stage's step, to train an encoder."""
        given = (encoder, self.perceptual, self.recipe.weight, self.embedding_loss)
        return DistillationStep(*given, mse_weight=self.recipe.embedding, terms=self.terms)

    def encoder_batches(self, *, watched: bool = False) -> DistillationBatches:
        """What the first stage's step needs: `batches` of the teacher."""
        return self.batches(
            self.teacher,
            watched=watched,
            labels=self.recipe.perceptual == "masked" or self.terms is not None,
            saliency=next(iter(kept_maps(self.recipe.saliency)), None),
        )

    def _encoder(self) -> dict[str, Any]:
        recipe, encoder = self.recipe, self.network.image_encoder
        step = self.encoder_step(encoder)
        measure = None
        if self.watched:
            held = _kept(self.encoder_batches(watched=True), self.teacher)
            measure = partial(held_out_errors, step, batches=held, device=self.device)
        stage = Stage(
            step,
            encoder,
            self.encoder_batches(),
            measure,
            key="loss",
            smaller=True,
            rates=(recipe.rate, recipe.trunk_rate),
            more={"balance": step.balance},
        )
        return self._train(stage, "encoder")

    def _decoder(self) -> dict[str, Any]:
        folder, rate = self.out / "decoder", self.recipe.decoder_rate
        student = Teacher(
            copy.deepcopy(self.network),
            self.specs,
            state_sha256(self.network.image_encoder),
            device=self.device,
            batch=self.recipe.batch,
        )
        if self.teacher.cache is not None:
            student.open_cache(folder / "cache", self.teacher.cache.form, self.teacher.cache.limit)
        source = self.teacher if self.recipe.decoder_first else student
        measure = None
        if self._labelled():
            held = _kept(self.batches(student, watched=True, images=False, labels=True), student)
            measure = partial(_dice_of_decoder, self.network, held, self.device)
        stage = Stage(
            TuningStep(self.network, seed=self.recipe.seed, loss=self.mask_loss),
            self.network.mask_decoder,
            self.batches(source, images=False, labels=True),
            measure,
            key="dice",
            smaller=False,
            rates=(rate, rate),
        )
        summary = self._train(stage, "decoder")
        if student.cache is not None:
            student.cache.close()
            shutil.rmtree(folder / "cache", ignore_errors=True)  # nobody else has this student
        return summary

    def _joint(self) -> dict[str, Any]:
        recipe = self.recipe
        measure = None
        if self._labelled():
            held = self.batches(None, watched=True, labels=True)
            measure = partial(prompted_dice, batches=held, whole=True, device=self.device)
        alone = recipe.stages == ("joint",)
        stage = Stage(
            TuningStep(self.network, whole=True, seed=recipe.seed, loss=self.mask_loss),
            self.network,
            self.batches(None, labels=True),
            measure,
            key="dice",
            smaller=False,
            rates=(recipe.rate, recipe.trunk_rate) if alone else (recipe.joint_rate, recipe.joint_rate),
        )
        return self._train(stage, "joint")

    def _train(self, stage: Stage, name: str) -> dict[str, Any]:
        return train_stage(stage, self.out / name, self.recipe, resume=self.resume, device=self.device)

    def _labelled(self) -> bool:
        """Whether there is anything to see on the pictures to watch."""
        return any(self.pictures[row].label.any() for row in self.watched)


def _kept(batches: DistillationBatches, source: Teacher) -> Iterable[ViewBatch]:
    """The batches themselves, or a list of them where the source would compute them again each time."""
    return batches if source.cache is not None else list(batches)


def _dice_of_decoder(
    network: PromptableSam,
    batches: Iterable[ViewBatch],
    device: torch.device | str,
    decoder: nn.Module,
) -> dict[str, float]:
    """`prompted_dice` of a network with another decoder in the place of its own."""
    own = network.mask_decoder
    network.mask_decoder = decoder
    try:
        return prompted_dice(network, batches, device=device)
    finally:
        network.mask_decoder = own
