# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""All architectures of one frame in one network: shared weights, and a vector of logits for every choice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from monai_effsam.errors import UsageError
from monai_effsam.nas.space.search_space import SearchSpace
from monai_effsam.nas.supernet.drawing_lots import ChoiceLot, fixed_lots
from monai_effsam.nas.supernet.macros import FRAME
from monai_effsam.nas.supernet.mixed_block import BlockGuards, MixedBlock, gated
from monai_effsam.nas.supernet.slicing import SlicedModule
from monai_effsam.networks.blocks.mbconv import ConvNorm
from monai_effsam.networks.blocks.operations import SKIP
from monai_effsam.networks.encoders.architecture import Architecture
from monai_effsam.networks.encoders.inverted_trunk import STEM_WIDTHS, InvertedStem
from monai_effsam.networks.encoders.searched import SearchedStem, embedding_head, enlarged, stage_entry

__all__ = ["SearchSupernet"]

_START = 1e-3  # spread of the logits


class _GatedHead(nn.Sequential):
    """`embedding_head` with a gate before the convolution that mixes channels: before a norm it would be undone."""

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        for layer in list(self)[:-2]:
            x = layer(x)
        x = x if gate is None else x * gate
        return cast(Tensor, self[-1](self[-2](x)))


def _head(kind: str, embed_channels: int, width: int) -> nn.Module:
    return _GatedHead(*embedding_head(width, embed_channels, kind))


class SearchSupernet(nn.Module):
    """Encoders of one frame of a search space, each a part of this network.

    The operation of every slot (with `skip`, which makes depth), the width of every stage, and width and kind of the
    neck are relaxed; what changes the frame is not, see `FRAME`. Candidates have norms without scale
    and without running statistics (`SearchNorm`). In evaluation an architecture needs `recalibrate` first.

    Args:
        space: of one frame, see `frames`.
        seed: of the logits' small start values.

    Raises:
        UsageError: a space of several frames.
    """

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        """Build with PyTorch's default initialisation, everything at its widest."""
        super().__init__()
        open_frame = [c.name for c in space.choices if c.name in FRAME and len(c.options) > 1]
        if open_frame:
            raise UsageError(
                f"SearchSupernet: space {space.name} leaves {', '.join(open_frame)} open, expected one option each. "
                "Take the parts that `frames` gives."
            )
        self.space, self.guards = space, BlockGuards()
        self.relaxed = tuple(choice for choice in space.choices if choice.name not in FRAME)
        generator = torch.Generator().manual_seed(seed)
        self.logits = nn.ParameterDict(
            {
                _key(choice.name): nn.Parameter(
                    _START * torch.randn(len(choice.options), generator=generator)
                )
                for choice in self.relaxed
            }
        )
        first, embed_channels = space.stages[0], space.decoder_widths[0]
        if space.inverted:
            self.stem = SlicedModule(partial(_last_of_inverted, space.trunk == "inverted_same"))
        else:
            self.stem = SlicedModule(partial(_last_of_stem, first.stride), max(first.widths))
        self.entries, self.blocks = nn.ModuleList(), nn.ModuleList()
        before, reached = (STEM_WIDTHS[-1], 2) if space.inverted else (0, 0)
        for stage in space.stages:
            width = max(stage.widths)
            if before:
                step = stage.stride // reached
                entry = partial(stage_entry, name=stage.entry, stride=step, trunk=space.trunk)
                self.entries.append(SlicedModule(entry, before, width))
            blocks = (
                MixedBlock((*stage.ops, SKIP), width, self.guards, space.trunk) for _ in range(stage.slots)
            )
            self.blocks.append(nn.ModuleList(blocks))
            before, reached = width, stage.stride
        neck = max(space.neck_widths)
        used = {s.stride: max(s.widths) for s in space.stages if s.stride >= space.strides[0]}
        self.laterals = nn.ModuleList(SlicedModule(ConvNorm, width, neck) for width in used.values())
        self.heads = nn.ModuleDict(
            {kind: SlicedModule(partial(_head, kind, embed_channels), neck) for kind in space.neck_kinds}
        )

    def arch_parameters(self) -> Iterator[nn.Parameter]:
        """The logits of all choices."""
        yield from self.logits.parameters()

    def weight_parameters(self) -> Iterator[nn.Parameter]:
        """Everything else that learns."""
        own = {id(logit) for logit in self.arch_parameters()}
        yield from (parameter for parameter in self.parameters() if id(parameter) not in own)

    def choice_logits(self) -> dict[str, Tensor]:
        """Logits by the name of the choice."""
        return {choice.name: self.logits[_key(choice.name)] for choice in self.relaxed}

    def probabilities(self, temperature: float = 1.0) -> dict[str, Tensor]:
        """Softmax of the logits by the name of the choice; of the frame's choices a single 1."""
        found = {c.name: torch.ones(1) for c in self.space.choices if c.name in FRAME}
        return found | {n: (x.float() / temperature).softmax(0) for n, x in self.choice_logits().items()}

    def lots_of(self, architecture: Architecture) -> dict[str, ChoiceLot]:
        """Lots under which exactly an architecture is computed; raises as `SearchSpace.encode`."""
        vector = self.space.encode(architecture)
        named = {c.name: i for c, i in zip(self.space.choices, vector, strict=True)}
        return fixed_lots({choice.name: named[choice.name] for choice in self.relaxed})

    def forward(self, image: Tensor, lots: Mapping[str, ChoiceLot]) -> Tensor:
        """Images (B, 3, H, W) under lots of all relaxed choices -> embedding (B, C, h, w)."""
        maps: dict[int, Tensor] = {}
        x, width = image, 0
        if self.space.inverted:
            x, width = self.stem((), image), STEM_WIDTHS[-1]
        for index, (name, stage) in enumerate(zip(self.space.labels, self.space.stages, strict=True)):
            before = width
            width, gate = gated(stage.widths, lots[f"{name}.width"])
            entry = self.entry(index)
            x = self.stem((width,), x) if entry is None else entry((before, width), x)
            x = x if gate is None else x * gate
            for slot, block in enumerate(cast(nn.ModuleList, self.blocks[index])):
                x = block(x, lots[f"{name}.op{slot}"], gate)
            if stage.stride >= self.space.strides[0]:
                maps[stage.stride] = x
        return self._embedding(list(maps.values()), lots)

    def entry(self, stage: int) -> SlicedModule | None:
        """What leads to the stage of that index; to the first of a plain trunk the stem does."""
        index = stage if self.space.inverted else stage - 1
        return cast(SlicedModule, self.entries[index]) if index >= 0 else None

    def _embedding(self, maps: list[Tensor], lots: Mapping[str, ChoiceLot]) -> Tensor:
        width, gate = gated(self.space.neck_widths, lots["neck.width"])
        fused: Tensor = self.laterals[0]((maps[0].shape[1], width), maps[0])
        for i, x in enumerate(maps[1:], 1):
            fused = fused + enlarged(self.laterals[i]((x.shape[1], width), x), 2**i)
        lot = lots["neck.kind"]
        kinds = [self.space.neck_kinds[index] for index in lot.options]
        found = [cast(Tensor, self.heads[kind]((width,), fused, gate)) for kind in kinds]
        if lot.weights is None:
            return found[0]
        return torch.stack([w * out for w, out in zip(lot.weights, found, strict=True)]).sum(0)

    def path_state(self, architecture: Architecture) -> dict[str, Tensor]:
        """What an architecture's encoder is made of, by the keys of `SearchedEncoder`; raises as `lots_of`.

        Tensors are views of this network's wherever they are not cuts of stacked queries, keys and values.
        """
        chosen = {name: lot.chosen for name, lot in self.lots_of(architecture).items()}
        state: dict[str, Tensor] = {}

        def add(prefix: str, module: nn.Module, *dims: int) -> None:
            own = cast(SlicedModule, module).state(dims)
            state.update({f"{prefix}.{name}": tensor for name, tensor in own.items()})

        width = STEM_WIDTHS[-1] if self.space.inverted else architecture.stages[0].width
        add("stem", self.stem, *(() if self.space.inverted else (width,)))
        pairs = zip(architecture.stages, self.space.stages, self.space.labels, strict=True)
        for index, (shape, stage, label) in enumerate(pairs):
            if entry := self.entry(index):
                add(f"stages.{index}.0", entry, width, shape.width)
            width, place = shape.width, int(entry is not None)
            for slot, block in enumerate(cast(nn.ModuleList, self.blocks[index])):
                name = (*stage.ops, SKIP)[chosen[f"{label}.op{slot}"]]
                if name != SKIP:
                    add(f"stages.{index}.{place}", cast(MixedBlock, block).candidates[name], width)
                    place += 1
        neck = architecture.neck
        for i, (wide, lateral) in enumerate(zip(architecture.levels.values(), self.laterals, strict=True)):
            add(f"neck.lateral.{i}", lateral, wide, neck.width)
        add("neck.head", self.heads[neck.kind], neck.width)
        return state


class _LastOfStem(SearchedStem):
    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(image)[-1]


def _last_of_stem(stride: int, width: int) -> nn.Module:
    return _LastOfStem(width, stride)


class _LastOfInverted(InvertedStem):
    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(image)[-1]


def _last_of_inverted(same: bool) -> nn.Module:
    return _LastOfInverted(same=same)


def _key(name: str) -> str:
    return name.replace(".", "_")  # a parameter's name may hold no dot
