# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The app's scores, orders and training in this process, on maps that are made once and shared by all runs of a set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from monai_effsam.checkpoints import LoadedModel, load_model
from monai_effsam.data.sets import Case
from monai_effsam.data.slices import load_slices
from monai_effsam.inference.answers import Encoding
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.labelling.choosing.order import ORDERS, Candidates
from monai_effsam.labelling.choosing.scores import ImageScores, pooled_embedding, score_encoding
from monai_effsam.labelling.durable import beside
from monai_effsam.labelling.learning.finetune import Learning, fine_tune
from monai_effsam.labelling.learning.tuning import CachedSlice, cache_slices, encoded_of, held_dice
from monai_effsam.labelling.simulating.rounds import clicks_to_mend, draw_cases
from monai_effsam.networks.nets import EspMedSam

__all__ = ["CachedSet", "InProcessApp", "cached_set"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedSet:
    """A set after the part of the network that does not learn.

    Args:
        model: that it was made with; every run starts from it.
        pool: images that may be labelled, by name.
        test: images to measure on.
        targets: that the set labels, all that anybody asks for.
        first: the model after a seed's first round, which is the same for all strategies.
    """

    model: LoadedModel
    pool: dict[str, CachedSlice]
    test: list[CachedSlice]
    targets: frozenset[str]
    first: dict[tuple[Any, ...], LoadedModel] = field(default_factory=dict)


def cached_set(
    model_path: Path, cases: Sequence[Case], *, pool: int, test: int, file: Path | None = None, seed: int = 0
) -> CachedSet:
    """Images of a set through the trunk, once; read from `file` if they were made with the same model and numbers.

    Args:
        model_path: a self-prompting model that has not seen the set.
        cases: labelled; those of the split `train` may be labelled, all others are measured on.
        pool: of the former, so many.
        test: of the latter, so many.
        file: to keep the maps in.
        seed: of the draw.
    """
    model = load_model(model_path)
    chosen = draw_cases(cases, pool, test, seed)
    key = f"{model.card.get('sha256')} {model.specs} {pool} {test} {seed} {len(cases)} {cases[0].image}"
    known = None
    if file is not None and file.is_file():
        content = torch.load(file, mmap=True, weights_only=True)
        known = content["maps"] if content["key"] == key else None
    maps = []
    found: list[list[CachedSlice]] = []
    for number, own_cases in enumerate(chosen):
        slices = load_slices(own_cases, model.specs, model.targets, known_from=cases)
        if known is None:
            found.append(list(_told(cache_slices(model, slices), len(slices))))
            maps.append([(list(one.parts), one.label) for one in found[-1]])
        else:
            placed = [model.specs[one.modality].place(one.image.shape) for one in slices]
            rows = zip(known[number], placed, slices, strict=True)
            found.append([CachedSlice(tuple(parts), label, at, one) for (parts, label), at, one in rows])
    if file is not None and known is None:
        part_file = beside(file)
        torch.save({"key": key, "maps": maps}, part_file)
        part_file.replace(file)
    names = [case.image.stem for case in chosen[0]]
    targets = frozenset(name for case in cases for name in case.values.values())
    return CachedSet(model, dict(zip(names, found[0], strict=True)), found[1], targets)


def _told(slices: Iterable[CachedSlice], count: int) -> Iterator[CachedSlice]:
    """The slices, with a line in the log now and then."""
    for number, one in enumerate(slices, 1):
        if number % 50 == 0:
            log.info("%d of %d images encoded", number, count)
        yield one


class InProcessApp:
    """One run: starts with the set's model and no labels.

    Args:
        data: shared by all runs.
        learning: the same short training each round, from the same weights.
        seed: of chance.
        candidates: so many unlabelled images, drawn anew each round, are scored and chosen from.
    """

    def __init__(self, data: CachedSet, learning: Learning, seed: int, *, candidates: int = 150) -> None:
        self.data, self.learning, self.candidates, self.seed = data, learning, candidates, seed
        self.labelled: list[str] = []
        self._trained = False
        self._random = np.random.RandomState(seed)
        self._pooled: dict[str, NDArray[np.float32]] = {}
        self._use(data.model)

    def _use(self, model: LoadedModel) -> None:
        self.model, self._segmenter = model, Segmenter(TorchRuntime(model))
        if self.learning.controllers:  # without them embeddings stay what they are
            self._pooled.clear()

    def choose(self, strategy: str, count: int, round_: int) -> list[str]:
        """Images to label next, by the app's own order of the strategy."""
        free = [name for name in self.data.pool if name not in set(self.labelled)]
        if round_ == 0 or strategy == "random":
            drawn = np.random.RandomState([self.seed, round_]).permutation(len(free))[:count]
            return [free[i] for i in drawn]
        drawn = self._random.permutation(len(free))[: max(count, self.candidates)]
        names = [free[i] for i in drawn]
        scores = self._scores(names, (*names, *self.labelled), strategy)
        order = ORDERS[strategy][1]
        if strategy not in ("diversity", "combined"):
            return order(Candidates(names, self.labelled, scores, self._random))[:count]
        chosen: list[str] = []
        for _ in range(min(count, len(names))):  # as users would: what was given out counts as labelled
            given = Candidates(names, [*self.labelled, *chosen], scores, self._random)
            chosen.append(order(given)[0])
            names.remove(chosen[-1])
        return chosen

    def _scores(self, doubtful: Sequence[str], every: Sequence[str], strategy: str) -> dict[str, ImageScores]:
        found = {}
        for name in every:
            if name in doubtful and strategy != "diversity":
                encoding = self._encoding(self.data.pool[name])
                found[name] = score_encoding(self._segmenter, encoding, self.data.targets)
                self._pooled[name] = found[name].pooled
                continue
            if name not in self._pooled:
                self._pooled[name] = pooled_embedding(self._encoding(self.data.pool[name]).encoded)
            found[name] = ImageScores(0.0, 0.0, 0.0, self._pooled[name])
        return found

    @torch.no_grad()
    def _encoding(self, one: CachedSlice) -> Encoding:
        network = cast(EspMedSam, self.model.network)
        index = network.modalities.index(one.slice.modality)
        encoded: Any = encoded_of(network, [part[None] for part in one.parts], index)
        return Encoding(encoded, one.placement, one.slice.modality, 1, {})

    def label(self, names: Sequence[str]) -> int:
        """The oracle labels; clicks by the masks of the model in use."""
        clicks = 0
        for name in names:
            one = self.data.pool[name]
            mask = self._segmenter.decode(self._encoding(one), targets=list(self.data.targets)).mask[0] > 0
            clicks += clicks_to_mend(mask, one.slice.label > 0)
        self.labelled.extend(names)
        return clicks

    def train(self) -> None:
        """From the first weights, on all labels."""
        known, key = self.data.first, (self.learning, *self.labelled)
        model = known.get(key) or fine_tune(
            self.data.model, [self.data.pool[n] for n in self.labelled], self.learning
        )
        if not self._trained:
            known[key] = model
        self._trained = True
        self._use(model)

    def dice(self) -> float:
        """Of the answers as users get them."""
        return held_dice(self.model, self.data.test, self.data.targets)
