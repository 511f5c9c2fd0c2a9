# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a search for an encoder learns from: a teacher's embeddings of pictures, and short distillations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ignite.distributed as idist
import torch
from torch import Tensor

from monai_effsam.data.distilling import DistillationBatches, ViewBatch
from monai_effsam.data.pairs import split_groups
from monai_effsam.data.pictures import Pictures
from monai_effsam.engines.optimisation import Schedule, build_optimizer
from monai_effsam.engines.students import Student
from monai_effsam.engines.teacher import Filled, Teacher
from monai_effsam.errors import DataError, WeightsError
from monai_effsam.losses import EmbeddingMseLoss
from monai_effsam.nas.inheritance import MobileTrunk, inherit
from monai_effsam.nas.search import SupernetMaterial
from monai_effsam.nas.space import Architecture, SearchSpace
from monai_effsam.nas.supernet import SearchSupernet
from monai_effsam.networks.encoders import SearchedEncoder
from monai_effsam.networks.encoders.architecture import SIZE_STEP
from monai_effsam.networks.encoders.searched import enlarged
from monai_effsam.specs import ImageSpec

__all__ = ["SearchMaterial", "SearchRows", "SearchSizes", "SharedViews", "split_pictures"]

_WATCHED = 0.2  # share of the groups that judge
_CHOOSING = 0.2  # share of the others that choices learn from


class SearchRows(NamedTuple):
    """Indices of pictures; no patient or sequence is in two parts.

    Attributes:
        weights: that weights learn from.
        choices: that choices learn from.
        judged: that networks are judged on.
    """

    weights: list[int]
    choices: list[int]
    judged: list[int]


@dataclass(frozen=True)
class SearchSizes:
    """How much a search looks at.

    Args:
        batch: views a batch.
        views: of each picture.
        judge_steps: of the short distillation that judges a network.
        judge_rate: of its weights.
        most_judged: pictures that it is judged on; of more every n-th is.
    """

    batch: int = 8
    views: int = 2
    judge_steps: int = 150
    judge_rate: float = 2e-3
    most_judged: int = 100


def split_pictures(pictures: Pictures, seed: int = 0) -> SearchRows:
    """Three parts by patient or sequence: a fifth judges, and of the rest a fifth chooses.

    Raises:
        DataError: fewer than three patients or sequences.
    """
    groups = list(dict.fromkeys(pictures.groups))
    if len(groups) < 3:
        raise DataError(
            f"search: the pictures are of {len(groups)} patients or sequences, expected at least 3, to train, choose "
            "and judge on different ones. Add some."
        )
    side = split_groups(groups, seed=seed, val_share=_WATCHED)
    rest = [group for group in groups if side[group] == "train"]
    if len(rest) < 2:  # a small folder: two must be left
        rest = groups[:2]
    inner = split_groups(rest, seed=seed + 1, val_share=_CHOOSING)
    rows = SearchRows([], [], [])
    for index, group in enumerate(pictures.groups):
        part = rows.judged if group not in inner else rows.choices if inner[group] == "val" else rows.weights
        part.append(index)
    return rows


class SharedViews(DistillationBatches):
    """Batches of which each process makes its own part: rank r every n-th view from the r-th on."""

    def __iter__(self) -> Iterator[ViewBatch]:
        """This process's part of the batches of the current `epoch`."""
        rank, world, chosen = idist.get_rank(), idist.get_world_size(), self.chosen(self.epoch)
        for step in range(len(self)):
            own = chosen[step * self.size : (step + 1) * self.size][rank::world]
            yield self.collate([self.view(*pair) for pair in own])


class SearchMaterial:
    """Pictures and a teacher's embeddings, as supernets and judged networks see them.

    Args:
        space: that is searched; the teacher's embedding must be one of its decoder's widths.
        teacher: with a cache, or without.
        pictures: to look at.
        sizes: how much.
        seed: of splits, order and views.
        device: to train on.
        ancestor: trunk that every network inherits from before it learns; None for none.

    Raises:
        DataError: too few pictures.
        WeightsError: a teacher whose embedding no network of the space has.
    """

    def __init__(
        self,
        space: SearchSpace,
        teacher: Teacher,
        pictures: Pictures,
        sizes: SearchSizes = SearchSizes(),
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        ancestor: MobileTrunk | None = None,
    ) -> None:
        width = teacher.encoder.embed_channels
        if space.decoder_widths != (width,):
            raise WeightsError(
                f"teacher: its embedding has {width} channels, expected those of search space {space.name}, "
                f"{', '.join(map(str, space.decoder_widths))}. Take another teacher or space."
            )
        self.space, self.teacher, self.pictures, self.sizes = space, teacher, pictures, sizes
        self.seed, self.device, self.ancestor = seed, device, ancestor
        self.rows = split_pictures(pictures, seed)
        step = -(-len(self.rows.judged) // sizes.most_judged)
        self.judged_rows = self.rows.judged[::step]
        self.finest = max(size // stride for size in space.sizes for stride in space.strides)
        self.loss = EmbeddingMseLoss()
        self._judging: dict[int, list[ViewBatch]] = {}

    @property
    def identity(self) -> str:
        """What judging depends on, in words."""
        own = f" inherits {self.ancestor.name} {self.ancestor.sha256}" if self.ancestor else ""
        return f"{self.teacher.sha256} {len(self.pictures)} pictures {self.sizes} seed {self.seed}{own}"

    def begin(self, network: SearchedEncoder | SearchSupernet) -> None:
        """Let a fresh network inherit, if there is something to."""
        if self.ancestor is not None:
            spec = ImageSpec(SIZE_STEP)  # all are shown pictures of one mean and standard deviation
            inherit(network, self.ancestor, mean=spec.mean, std=spec.std)

    def fill(self, progress: Any = iter) -> Filled:
        """Let the teacher look at every view once; see `Teacher.fill`."""
        trained = self.teacher.fill(
            self.pictures,
            rows=[*self.rows.weights, *self.rows.choices],
            views=self.sizes.views,
            progress=progress,
        )
        judged = self.teacher.fill(self.pictures, rows=self.judged_rows, progress=progress)
        return Filled(trained.computed + judged.computed, trained.found + judged.found)

    def batches(
        self,
        kind: type[DistillationBatches],
        rows: Sequence[int],
        size: int,
        stride: int,
        *,
        seed: int | None = None,
    ) -> DistillationBatches:
        """Batches of some pictures as an encoder of this size and stride sees them; in order without a seed."""
        student = Student(spec=ImageSpec(size, stride=stride))
        parts = (
            idist.get_world_size() if kind is SharedViews else 1
        )  # equal ones, or means would not be means
        if len(rows) < parts:
            raise DataError(
                f"search: {len(rows)} pictures are to be shared by {parts} processes, expected at least one each. "
                "Add some, or take fewer processes."
            )
        return kind(
            self.pictures,
            student.specs(self.teacher.specs),
            self.teacher,
            rows=rows,
            views=self.sizes.views,
            batch=max(parts, min(self.sizes.batch, len(rows)) // parts * parts),
            shuffle=seed is not None,
            seed=seed or 0,
        )

    def of_frame(self, frame: SearchSpace) -> SupernetMaterial:
        """What a supernet learns from."""
        size, stride = frame.sizes[0], frame.strides[0]
        return SupernetMaterial(
            self.batches(SharedViews, self.rows.weights, size, stride, seed=self.seed),
            self.batches(SharedViews, self.rows.choices, size, stride, seed=self.seed + 1),
            self.embedding_loss,
        )

    def embedding_loss(self, embedding: Tensor, batch: ViewBatch) -> Tensor:
        """Mean squared error where the picture is."""
        found: Tensor = self.loss(embedding, batch.target, batch.valid)
        return found

    def judge(self, architecture: Architecture) -> float:
        """Score of a network after a short distillation: minus its mean squared error on the pictures that judge.

        Its embedding is enlarged to the finest grid of the space, so that networks of all grids can be compared. A pure
        function of architecture and material.
        """
        encoder = self.distilled(architecture)
        side, stride = architecture.size, architecture.size // self.finest
        if side not in self._judging:
            self._judging[side] = list(self.batches(DistillationBatches, self.judged_rows, side, stride))
        errors = []
        with torch.no_grad():
            for item in self._judging[side]:
                batch = item.to(self.device)
                embedding = enlarged(encoder(batch.image, None).embedding, architecture.stride // stride)
                errors.append(float(self.embedding_loss(embedding, batch)) * len(batch.image))
        count = sum(len(batch.image) for batch in self._judging[side])
        return -sum(errors) / count

    def distilled(
        self, architecture: Architecture, batches: Sequence[ViewBatch] | None = None
    ) -> SearchedEncoder:
        """A fresh encoder after the short distillation, in evaluation mode.

        Args:
            architecture: of the encoder.
            batches: these alone instead of those of the pictures, a step each.
        """
        steps = self.sizes.judge_steps if batches is None else len(batches)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            encoder = SearchedEncoder(architecture=architecture)
            self.begin(encoder)
        encoder.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        rate = self.sizes.judge_rate
        schedule = Schedule(steps, max(1, steps // 10), rate, rate / 2)  # shares as of a distillation
        optimizer = build_optimizer(encoder.train(), schedule)
        for step, item in enumerate(self._training(architecture) if batches is None else batches):
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * schedule.factor(step)
            batch = item.to(self.device)
            optimizer.zero_grad(set_to_none=True)
            self.loss(encoder(batch.image, None).embedding, batch.target, batch.valid).backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 5.0)
            optimizer.step()
        return encoder.eval()

    def _training(self, architecture: Architecture) -> Iterator[ViewBatch]:
        rows = [*self.rows.weights, *self.rows.choices]
        size, stride = architecture.size, architecture.stride
        batches = self.batches(DistillationBatches, rows, size, stride, seed=self.seed + 2)
        return _endless(batches, self.sizes.judge_steps)


def _endless(batches: DistillationBatches, steps: int) -> Iterator[ViewBatch]:
    """So many batches, an epoch after the other."""
    epoch = done = 0
    while True:
        batches.epoch = epoch
        for batch in batches:
            yield batch
            done += 1
            if done == steps:
                return
        epoch += 1
