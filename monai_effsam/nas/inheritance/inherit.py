# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A searched encoder, or a whole supernet, filled from a trunk that has seen photographs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from monai_effsam.nas.inheritance.channels import chosen_channels, stem_importance, stream_importance
from monai_effsam.nas.inheritance.fitting_blocks import (
    InheritedPart,
    fill_fused,
    fill_inverted,
    fill_layer,
    fill_separable,
    quieten,
)
from monai_effsam.nas.inheritance.trunk_weights import LayerWeights, MobileTrunk
from monai_effsam.nas.space.choices import stage_labels
from monai_effsam.nas.supernet.mixed_block import MixedBlock
from monai_effsam.nas.supernet.search_supernet import SearchSupernet
from monai_effsam.networks.blocks.mbconv import ConvNorm
from monai_effsam.networks.blocks.operations import INVERTED
from monai_effsam.networks.encoders.inverted_trunk import InvertedStem
from monai_effsam.networks.encoders.searched import SearchedEncoder

__all__ = ["Inheritance", "inherit"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inheritance:
    """What a network took from a trunk.

    Args:
        network: timm's name of the trunk.
        sha256: of its file.
        blocks: place -> share of its convolutions' weights that are inherited, 0..1.
        inherited: weights of convolutions in all.
        parameters: of the whole network.
    """

    network: str
    sha256: str
    blocks: dict[str, float]
    inherited: int
    parameters: int

    @property
    def share(self) -> float:
        """Inherited weights over all parameters of the network, 0..1."""
        return self.inherited / self.parameters

    def to_json(self) -> dict[str, Any]:
        """For cards and reports."""
        return {
            "network": self.network,
            "sha256": self.sha256,
            "share": round(self.share, 4),
            "blocks": {place: round(share, 4) for place, share in self.blocks.items()},
        }


class _Place(NamedTuple):
    """A block of the network to be filled; without `slot` what leads to its stage."""

    stage: int
    slot: int | None
    op: str
    module: nn.Module


class _Plan(NamedTuple):
    """Who inherits from whom.

    Attributes:
        sources: index of the trunk's stage for each of the network's; None where there is none.
        streams: channels of the trunk that each stage's map consists of.
        ordered: as of `chosen_channels`.
    """

    sources: list[int | None]
    streams: list[Tensor]
    ordered: bool


def inherit(
    network: SearchedEncoder | SearchSupernet,
    trunk: MobileTrunk,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Inheritance:
    """Fill what of a network is made of inverted residuals from the trunk's, at the same stride and order.

    The n-th stage of a stride takes from the trunk's n-th of it. The channels of a stage's map are chosen once, for all
    blocks that write or read it; in a supernet they are ordered by importance, since its narrow members are the first
    channels of the wide ones. Of an encoder, blocks that inherit nothing hand on their input at first where they can
    (`quieten`); in a supernet, whose norms do not learn, they keep their initialisation.

    Args:
        network: changed in place.
        trunk: to inherit from.
        mean: of the network's input, RGB, if it is another than the trunk's.
        std: likewise.

    Returns:
        What was inherited.
    """
    shape = network.space if isinstance(network, SearchSupernet) else network.architecture
    if shape.inverted and shape.trunk != trunk.kind:
        log.warning("%s pads otherwise than a trunk of the kind %s", trunk.name, shape.trunk)
    if isinstance(network, SearchSupernet):
        widths, stem = [max(stage.widths) for stage in network.space.stages], cast(Any, network.stem).full
        places = list(_supernet_places(network))
    else:
        widths, stem = [stage.width for stage in network.architecture.stages], network.stem
        places = list(_encoder_places(network))
    labels = stage_labels([stage.stride for stage in shape.stages])
    plan = _plan(trunk, labels, widths, ordered=isinstance(network, SearchSupernet))
    found = {"stem": _fill_stem(stem, _with_input(trunk, mean, std), plan.ordered)}
    for place in places:
        filled = _fill(place, trunk, plan)
        if not filled.inherited and place.slot is not None and not plan.ordered:
            quieten(place.module)
        what = place.op if place.slot is None else f"{place.slot}.{place.op}"
        found[f"{labels[place.stage]}.{'entry.' if place.slot is None else ''}{what}"] = filled
    total = sum(filled.inherited for filled in found.values())
    shares = {name: filled.inherited / max(1, filled.all) for name, filled in found.items()}
    parameters = sum(p.numel() for p in network.parameters())
    log.info("%s: %d of %d parameters inherited", trunk.name, total, parameters)
    result = Inheritance(trunk.name, trunk.sha256, shares, total, parameters)
    if isinstance(network, SearchedEncoder):
        network.inherited = result.to_json()
    return result


def _plan(trunk: MobileTrunk, labels: Sequence[str], widths: Sequence[int], *, ordered: bool) -> _Plan:
    theirs = stage_labels([stage.stride for stage in trunk.stages])
    sources = [theirs.index(label) if label in theirs else None for label in labels]
    streams = []
    for source, width in zip(sources, widths, strict=True):
        if source is None:
            streams.append(torch.arange(0))
            continue
        after = [stage.entry for stage in trunk.stages[source + 1 : source + 2]]
        importance = stream_importance(trunk.stages[source], after)
        streams.append(chosen_channels(importance, width, ordered=ordered))
    return _Plan(sources, streams, ordered)


def _encoder_places(encoder: SearchedEncoder) -> Iterator[_Place]:
    for index, (shape, layers) in enumerate(zip(encoder.architecture.stages, encoder.stages, strict=True)):
        modules = list(cast(nn.Sequential, layers))
        if len(modules) > len(shape.ops):
            yield _Place(index, None, shape.entry, modules.pop(0))
        for slot, (op, module) in enumerate(zip(shape.ops, modules, strict=True)):
            yield _Place(index, slot, op, module)


def _supernet_places(supernet: SearchSupernet) -> Iterator[_Place]:
    for index, (stage, blocks) in enumerate(zip(supernet.space.stages, supernet.blocks, strict=True)):
        if entry := supernet.entry(index):
            yield _Place(index, None, stage.entry, entry.full)
        for slot, block in enumerate(cast(nn.ModuleList, blocks)):
            for op, module in cast(MixedBlock, block).candidates.items():
                yield _Place(index, slot, op, cast(Any, module).full)


def _fill(place: _Place, trunk: MobileTrunk, plan: _Plan) -> InheritedPart:
    """One place from the trunk, or nothing where it has nothing like it."""
    nothing = InheritedPart(
        0, sum(m.weight.numel() for m in place.module.modules() if isinstance(m, nn.Conv2d))
    )
    source, channels = plan.sources[place.stage], plan.streams[place.stage]
    if source is None:
        return nothing
    stage = trunk.stages[source]
    if place.slot is None:
        before = plan.sources[place.stage - 1] if place.stage else -1
        if place.op not in INVERTED or before != source - 1:
            return nothing
        inputs = plan.streams[place.stage - 1] if place.stage else torch.arange(len(trunk.stem[2].weight))
        return fill_inverted(cast(nn.Sequential, place.module), stage.entry, inputs, channels, plan.ordered)
    if place.slot >= len(stage.blocks):
        return nothing
    block, layers = stage.blocks[place.slot], cast(nn.Sequential, getattr(place.module, "branch", None))
    if place.op in INVERTED:
        return fill_inverted(layers, block, channels, channels, plan.ordered)
    if place.op.startswith("fused_"):
        return fill_fused(layers, block, channels, plan.ordered)
    if place.op.startswith("dwsep_"):
        return fill_separable(layers, block, channels)
    return nothing


def _fill_stem(stem: nn.Module, layers: Sequence[LayerWeights], ordered: bool) -> InheritedPart:
    """All of an inverted trunk's stem; of a plain one's the first convolution."""
    modules = [module for module in stem.modules() if isinstance(module, ConvNorm)]
    total = InheritedPart(0, sum(module.c.weight.numel() for module in modules))
    colours = torch.arange(3)
    if not isinstance(stem, InvertedStem):
        width = modules[0].c.out_channels
        outputs = chosen_channels(stem_importance(layers), width, ordered=ordered)
        return total._replace(inherited=fill_layer(modules[0], layers[0], outputs, colours).inherited)
    wide, narrow = (torch.arange(len(layers[i].weight)) for i in (0, 2))
    filled = fill_layer(modules[0], layers[0], wide, colours)
    filled = filled.plus(fill_layer(modules[1], layers[1], wide))
    return filled.plus(fill_layer(modules[2], layers[2], narrow, wide))


def _with_input(
    trunk: MobileTrunk, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[LayerWeights, LayerWeights, LayerWeights]:
    """The trunk's stem for an input of another mean and standard deviation; the same but at the image's border."""
    first, *others = trunk.stem
    theirs, own = torch.tensor(trunk.std), torch.tensor(std or trunk.std)
    shift = (torch.tensor(mean or trunk.mean) - torch.tensor(trunk.mean)) / theirs
    added = (first.weight * shift[:, None, None]).sum((1, 2, 3))
    weight = first.weight * (own / theirs)[:, None, None]
    return (first._replace(weight=weight, mean=first.mean - added), others[0], others[1])
