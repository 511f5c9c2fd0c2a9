# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Which architectures a search may choose from, as one list of choices."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from monai_effsam.errors import SpecError, UsageError
from monai_effsam.nas.space.choices import (
    SearchChoice,
    StageChoices,
    architecture_values,
    stage_labels,
)
from monai_effsam.networks.blocks.operations import SKIP, find_operation
from monai_effsam.networks.encoders.architecture import (
    TRUNK_KINDS,
    Architecture,
    DecoderShape,
    NeckShape,
    StageShape,
)

__all__ = ["SearchChoice", "SearchSpace", "StageChoices"]


@dataclass(frozen=True)
class SearchSpace:
    """A finite set of architectures; a vector of indices, one for each of `choices`, names each of them.

    A slot that holds `skip` is left out, so several vectors may mean one architecture; `encode` gives the one whose
    skips come last. Choices of stages finer than the stem have no say, and of an embedding finer than the stem
    the finest that there is is taken; so every vector means some architecture, and searchers need no repair.

    Args:
        name: in files and on the command line.
        stages: fine to coarse, strides as of `Architecture`; choices of a second one of a stride are called `stage16b`.
        stems: strides of the first stage.
        strides: image pixels a step of the embedding, each that of a stage.
        sizes: model sizes [px].
        neck_widths: C of the neck's sum.
        neck_kinds: of `NECK_KINDS`.
        decoder_widths: C of embedding and decoder.
        decoder_depths: blocks of its transformer.
        mlp_dims: hidden widths of its MLPs.
        trunk: of `TRUNK_KINDS`.

    Raises:
        SpecError: an empty choice, repeated options, or strides that fit no architecture.
        UnknownNameError: no such operation.
    """

    name: str
    stages: tuple[StageChoices, ...]
    stems: tuple[int, ...] = (4,)
    strides: tuple[int, ...] = (16,)
    sizes: tuple[int, ...] = (256,)
    neck_widths: tuple[int, ...] = (64,)
    neck_kinds: tuple[str, ...] = ("separable",)
    decoder_widths: tuple[int, ...] = (256,)
    decoder_depths: tuple[int, ...] = (2,)
    mlp_dims: tuple[int, ...] = (1024,)
    trunk: str = TRUNK_KINDS[0]

    def __post_init__(self) -> None:
        """Refuse what means no set of architectures."""
        for stage in self.stages:
            if SKIP in stage.ops or any(find_operation(op).reference for op in stage.ops):
                raise SpecError(
                    f"SearchSpace {self.name}: operations at stride {stage.stride} are {stage.ops}, expected none for "
                    f"reference only, and no {SKIP}, which every slot has."
                )
            for op in stage.ops:
                for width in stage.widths:
                    StageShape(stage.stride, width, (op,))
        for choice in self.choices:
            if not choice.options or len(set(choice.options)) != len(choice.options):
                raise SpecError(
                    f"SearchSpace {self.name}: {choice.name} has options {choice.options}, expected some, each once."
                )
        strides = [stage.stride for stage in self.stages]
        if not strides or min(self.stems) != strides[0] or not set(self.stems) <= set(strides):
            raise SpecError(
                f"SearchSpace {self.name}: stems are {self.stems}, expected strides of stages, the finest among them."
            )
        if max(self.stems) > max(self.strides):
            raise SpecError(
                f"SearchSpace {self.name}: strides are {self.strides}, expected one no finer than stem "
                f"{max(self.stems)}."
            )
        for index in range(max(len(choice.options) for choice in self.choices)):  # meets every option once
            self.decode([min(index, len(choice.options) - 1) for choice in self.choices])

    @property
    def inverted(self) -> bool:
        """Whether stem and entries are those of a MobileNetV2."""
        return self.trunk != TRUNK_KINDS[0]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """What the choices of each stage are called by."""
        return stage_labels([stage.stride for stage in self.stages])

    @cached_property
    def choices(self) -> tuple[SearchChoice, ...]:
        """Everything that is chosen, in the order of the vector."""
        found = [SearchChoice("stem", self.stems)]
        for where, stage in zip(self.labels, self.stages, strict=True):
            found.append(SearchChoice(f"{where}.width", stage.widths))
            found += [SearchChoice(f"{where}.op{i}", (*stage.ops, SKIP)) for i in range(stage.slots)]
        found.append(SearchChoice("neck.width", self.neck_widths))
        found.append(SearchChoice("neck.kind", self.neck_kinds))
        found.append(SearchChoice("stride", self.strides))
        found.append(SearchChoice("size", self.sizes))
        found.append(SearchChoice("decoder.width", self.decoder_widths))
        found.append(SearchChoice("decoder.depth", self.decoder_depths))
        found.append(SearchChoice("decoder.mlp_dim", self.mlp_dims))
        return tuple(found)

    def decode(self, vector: Sequence[int]) -> Architecture:
        """The architecture that a vector means.

        Raises:
            UsageError: another length, or an index out of its range.
        """
        sizes = [len(choice.options) for choice in self.choices]
        if len(vector) != len(sizes) or any(not 0 <= i < n for i, n in zip(vector, sizes, strict=True)):
            raise UsageError(
                f"SearchSpace {self.name}: vector is {list(vector)}, expected {len(sizes)} indices below {sizes}."
            )
        return self._build({c.name: c.options[int(i)] for c, i in zip(self.choices, vector, strict=True)})

    def _build(self, chosen: dict[str, int | str]) -> Architecture:
        """The architecture of an option for every choice."""
        stem = int(chosen["stem"])
        stages = tuple(
            StageShape(
                stage.stride,
                int(chosen[f"{label}.width"]),
                tuple(str(chosen[f"{label}.op{i}"]) for i in range(stage.slots)),
                stage.entry,
            )
            for label, stage in zip(self.labels, self.stages, strict=True)
            if stage.stride >= stem
        )
        stride = int(chosen["stride"])
        if stride < stem:
            stride = min(s for s in self.strides if s >= stem)
        return Architecture(
            stages,
            stride=stride,
            size=int(chosen["size"]),
            neck=NeckShape(int(chosen["neck.width"]), str(chosen["neck.kind"])),
            decoder=DecoderShape(
                int(chosen["decoder.width"]),
                int(chosen["decoder.depth"]),
                int(chosen["decoder.mlp_dim"]),
            ),
            trunk=self.trunk,
        )

    def encode(self, architecture: Architecture) -> tuple[int, ...]:
        """The vector of an architecture, skips last, 0 for what has no say.

        Raises:
            UsageError: it is not in the space; the message tells the first choice that differs.
        """
        values = architecture_values(architecture)
        used = [stage for stage in self.stages if stage.stride >= architecture.stages[0].stride]
        entries = [stage.entry for stage in used], [stage.entry for stage in architecture.stages]
        if architecture.trunk != self.trunk or (self.inverted and entries[0] != entries[1]):
            raise UsageError(
                f"SearchSpace {self.name}: trunk of {architecture.id} is {architecture.trunk} with entries "
                f"{', '.join(entries[1])}, expected {self.trunk} with {', '.join(entries[0])}."
            )
        finer = [f"{x}." for x, s in zip(self.labels, self.stages, strict=True) if s not in used]
        inert = {choice.name for choice in self.choices for label in finer if choice.name.startswith(label)}
        vector = []
        for choice in self.choices:
            value = choice.options[0] if choice.name in inert else values.pop(choice.name, SKIP)
            if value not in choice.options:
                raise UsageError(
                    f"SearchSpace {self.name}: {choice.name} of {architecture.id} is {value}, expected one of "
                    f"{', '.join(map(str, choice.options))}."
                )
            vector.append(choice.options.index(value))
        if values:
            raise UsageError(
                f"SearchSpace {self.name}: {architecture.id} has {', '.join(sorted(values))}, which the space lacks."
            )
        return tuple(vector)

    def validate(self, architecture: Architecture) -> None:
        """Refuse an architecture that is not in the space; errors as of `encode`."""
        self.encode(architecture)

    def __contains__(self, architecture: Architecture) -> bool:
        """Whether an architecture is in the space."""
        try:
            self.encode(architecture)
        except UsageError:
            return False
        return True

    def sample(self, rng: random.Random) -> Architecture:
        """An architecture at random: every option alike, and every number of operations in a stage alike."""
        chosen = {choice.name: rng.choice(choice.options) for choice in self.choices}
        for label, stage in zip(self.labels, self.stages, strict=True):
            depth = rng.randint(0, stage.slots)
            for i in range(stage.slots):
                chosen[f"{label}.op{i}"] = rng.choice(stage.ops) if i < depth else SKIP
        return self._build(chosen)

    def mutate(self, architecture: Architecture, rng: random.Random, changes: int = 1) -> Architecture:
        """Another architecture, up to `changes` of whose choices differ; itself where the space has no other.

        Raises:
            UsageError: it is not in the space.
        """
        vector = list(self.encode(architecture))
        free = [i for i, choice in enumerate(self.choices) if len(choice.options) > 1]
        for _ in range(100 if free else 0):  # a change of what has no say changes nothing
            changed = list(vector)
            for i in rng.sample(free, min(changes, len(free))):
                options = range(len(self.choices[i].options))
                changed[i] = rng.choice([o for o in options if o != vector[i]])
            if (found := self.decode(changed)) != architecture:
                return found
        return architecture

    def crossover(self, first: Architecture, second: Architecture, rng: random.Random) -> Architecture:
        """A child of two architectures: each choice from either of them.

        Raises:
            UsageError: one is not in the space.
        """
        pairs = zip(self.encode(first), self.encode(second), strict=True)
        return self.decode([rng.choice(pair) for pair in pairs])

    @cached_property
    def count(self) -> int:
        """How many architectures there are, each counted once."""
        rest = prod(len(c.options) for c in self.choices if c.name.startswith(("neck", "size", "decoder")))
        total = 0
        for stem in self.stems:
            used = [stage for stage in self.stages if stage.stride >= stem]
            nets = prod(len(s.widths) * sum(len(s.ops) ** d for d in range(s.slots + 1)) for s in used)
            total += nets * sum(stride >= stem for stride in self.strides)
        return total * rest

    def smallest(self) -> Architecture:
        """The one without any operation, with the narrowest stages, the coarsest grid and the least decoder."""
        chosen = {
            choice.name: min(o for o in choice.options if isinstance(o, int)) for choice in self._numbers
        }
        chosen |= {"stem": max(self.stems), "stride": max(self.strides)}
        thin = "separable" if "separable" in self.neck_kinds else self.neck_kinds[0]
        skips = dict.fromkeys((c.name for c in self.choices if SKIP in c.options), SKIP)
        return self._build({**chosen, **skips, "neck.kind": thin})

    @property
    def _numbers(self) -> list[SearchChoice]:
        return [choice for choice in self.choices if isinstance(choice.options[0], int)]

    def largest(self) -> Architecture:
        """The one with the widest and deepest stages, the finest grid, and everywhere the operation of most MACs."""
        chosen: dict[str, int | str] = {
            choice.name: max(o for o in choice.options if isinstance(o, int)) for choice in self._numbers
        }
        chosen |= {"stem": min(self.stems), "stride": min(self.strides)}
        chosen["neck.kind"] = "dense" if "dense" in self.neck_kinds else self.neck_kinds[0]
        for label, stage in zip(self.labels, self.stages, strict=True):
            side, width = max(self.sizes) // stage.stride, max(stage.widths)
            macs = {op: find_operation(op).cost(width, side, side).macs for op in stage.ops}
            heavy = max(macs, key=macs.__getitem__, default=SKIP)
            chosen |= {f"{label}.op{i}": heavy for i in range(stage.slots)}
        return self._build(chosen)
