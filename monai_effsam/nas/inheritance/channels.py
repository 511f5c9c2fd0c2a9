# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Which channels are inherited: those of largest weights, one choice for all layers that share them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_effsam.nas.inheritance.trunk_weights import LayerWeights, TrunkBlock, TrunkStage

__all__ = ["chosen_channels", "hidden_importance", "stem_importance", "stream_importance"]


def chosen_channels(importance: Tensor, count: int, *, ordered: bool) -> Tensor:
    """Indices of the `count` most important channels; all, where there are no more.

    Args:
        importance: (C).
        count: of channels that there is room for.
        ordered: the most important first, so that the first ones are the best choice for any narrower layer
            ("Once-for-All", Cai et al., arXiv 1908.09791); else as they stand.
    """
    order = importance.argsort(descending=True, stable=True)[:count]
    return order if ordered else order.sort().values


def hidden_importance(block: TrunkBlock, inputs: Tensor, outputs: Tensor) -> Tensor:
    """L1 norm of what leads to a hidden channel, times those of its kernel and of what it leads to, (hidden).

    Norms of filters as in "Pruning Filters for Efficient ConvNets", Li et al., arXiv 1608.08710; batch norms count.

    Args:
        block: of the trunk.
        inputs: channels that are kept of its input.
        outputs: and of its output.
    """
    expand, depthwise, project = block
    into = expand.weight[:, inputs, 0, 0].abs().sum(1) * expand.gain.abs()
    kernel = depthwise.weight.abs().sum((1, 2, 3)) * depthwise.gain.abs()
    out = (project.weight[outputs, :, 0, 0] * project.gain[outputs, None]).abs().sum(0)
    return into * kernel * out


def stream_importance(stage: TrunkStage, after: Sequence[TrunkBlock]) -> Tensor:
    """L1 norm of all that writes a channel of a stage's map, times that of all that reads it, (C).

    Args:
        stage: of the trunk.
        after: the entry of the stage that follows, if one does.
    """
    writers = [block.project for block in (stage.entry, *stage.blocks)]
    written = sum((w.weight.abs().sum((1, 2, 3)) * w.gain.abs() for w in writers), torch.zeros(stage.width))
    readers = [block.expand for block in (*stage.blocks, *after)]
    if not readers:
        return written
    read = sum(
        ((r.weight * r.gain[:, None, None, None]).abs().sum((0, 2, 3)) for r in readers),
        torch.zeros(stage.width),
    )
    return written * read


def stem_importance(stem: Sequence[LayerWeights]) -> Tensor:
    """The same of the first convolution's channels, (C)."""
    first, depthwise, pointwise = stem
    own = first.weight.abs().sum((1, 2, 3)) * first.gain.abs()
    kernel = depthwise.weight.abs().sum((1, 2, 3)) * depthwise.gain.abs()
    return own * kernel * (pointwise.weight * pointwise.gain[:, None, None, None]).abs().sum((0, 2, 3))
