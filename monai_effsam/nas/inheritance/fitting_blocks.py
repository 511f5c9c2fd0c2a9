# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Layers of a searched network filled from those of a trunk: cut, enlarged, multiplied; the norms go with them."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.nas.inheritance.channels import chosen_channels, hidden_importance
from monai_effsam.nas.inheritance.trunk_weights import LayerWeights, TrunkBlock
from monai_effsam.networks.blocks.mbconv import ConvNorm

__all__ = [
    "InheritedPart",
    "fill_fused",
    "fill_inverted",
    "fill_layer",
    "fill_separable",
    "fitted_kernel",
    "quieten",
]

_MOST = 10.0  # that a kernel's rest is multiplied with for what was cut off


class InheritedPart(NamedTuple):
    """How much of some layers was inherited.

    Attributes:
        inherited: weights of convolutions.
        all: that they have.
    """

    inherited: int = 0
    all: int = 0

    def plus(self, other: InheritedPart) -> InheritedPart:
        """Both together."""
        return InheritedPart(self.inherited + other.inherited, self.all + other.all)


def fitted_kernel(weight: Tensor, side: int) -> Tensor:
    """Kernels of another side, (..., k, k) -> (..., side, side), as in "Once-for-All" (Cai et al., arXiv 1908.09791).

    A larger one gets zeros around; of a smaller one the centre is left, times what keeps the sum of its absolute
    weights (Once-for-All learns a matrix for it), ten at most.
    """
    more = (side - weight.shape[-1]) // 2
    if more >= 0:
        return F.pad(weight, (more,) * 4)
    centre = weight[..., -more:more, -more:more]
    lost = weight.abs().sum((-2, -1), keepdim=True) / centre.abs().sum((-2, -1), keepdim=True).clamp(
        min=1e-12
    )
    return centre * lost.clamp(max=_MOST)


@torch.no_grad()
def fill_layer(
    target: ConvNorm, source: LayerWeights, outputs: Tensor, inputs: Tensor | None = None
) -> InheritedPart:
    """Write a trunk's layer into the first channels of a searched one.

    What is left of the target keeps its initialisation, but its new inputs do not reach inherited outputs at first.

    Args:
        target: with a norm of its own, or folded.
        source: to be inherited.
        outputs: indices of its output channels, no more than the target has.
        inputs: and of its inputs; None of a depthwise one.
    """
    weight = source.weight[outputs] if inputs is None else source.weight[outputs][:, inputs]
    weight = fitted_kernel(weight, target.c.kernel_size[0])
    count, taken = len(outputs), weight.shape[1]
    scale, shift, mean, variance = (part[outputs] for part in source[1:])
    norm: nn.Module = target.bn
    if isinstance(norm, nn.BatchNorm2d):
        norm.weight[:count], norm.bias[:count] = scale, shift
        cast(Tensor, norm.running_mean)[:count] = mean
        cast(Tensor, norm.running_var)[:count] = variance - norm.eps
    else:  # folded
        gain = scale * variance.rsqrt()
        weight = weight * gain[:, None, None, None]
        assert target.c.bias is not None
        target.c.bias[:count] = shift - mean * gain
    target.c.weight[:count] = 0.0
    target.c.weight[:count, :taken] = weight
    return InheritedPart(weight.numel(), target.c.weight.numel())


def fill_inverted(
    layers: nn.Sequential, source: TrunkBlock, inputs: Tensor, outputs: Tensor, ordered: bool
) -> InheritedPart:
    """An inverted residual from a trunk's: its hidden channels by their importance.

    Args:
        layers: 1x1, activation, depthwise, activation, 1x1.
        source: of the trunk.
        inputs: trunk's channels that the input consists of.
        outputs: and the output.
        ordered: as of `chosen_channels`.
    """
    expand, depthwise, project = (cast(ConvNorm, layers[i]) for i in (0, 2, 4))
    found = hidden_importance(source, inputs, outputs)
    hidden = chosen_channels(found, expand.c.out_channels, ordered=ordered)
    parts = fill_layer(expand, source.expand, hidden, inputs)
    parts = parts.plus(fill_layer(depthwise, source.depthwise, hidden))
    return parts.plus(fill_layer(project, source.project, outputs, hidden))


def fill_fused(layers: nn.Sequential, source: TrunkBlock, channels: Tensor, ordered: bool) -> InheritedPart:
    """A fused inverted residual: its k x k convolution is the product of a trunk's 1x1 and depthwise one.

    The activation between the two is passed over, as it must; what the first norm adds goes into the second's mean.

    Args:
        layers: k x k, activation, 1x1.
        source: of the trunk.
        channels: trunk's channels that input and output consist of.
        ordered: as of `chosen_channels`.
    """
    spatial, project = (cast(ConvNorm, layers[i]) for i in (0, 2))
    found = hidden_importance(source, channels, channels)
    hidden = chosen_channels(found, spatial.c.out_channels, ordered=ordered)
    expand, depthwise = source.expand, source.depthwise
    product = expand.weight * expand.gain[:, None, None, None] * depthwise.weight
    added = expand.offset * depthwise.weight.sum((1, 2, 3))
    fused = depthwise._replace(weight=product, mean=depthwise.mean - added)
    return fill_layer(spatial, fused, hidden, channels).plus(
        fill_layer(project, source.project, channels, hidden)
    )


def fill_separable(layers: nn.Sequential, source: TrunkBlock, channels: Tensor) -> InheritedPart:
    """A depthwise-separable block: an inverted residual in which each channel has the one hidden one it feeds most.

    Args:
        layers: depthwise, activation, 1x1.
        source: of the trunk.
        channels: trunk's channels that input and output consist of; each takes a hidden channel that is free yet.
    """
    depthwise, project = (cast(ConvNorm, layers[i]) for i in (0, 2))
    into = source.expand.weight[:, :, 0, 0] * source.expand.gain[:, None]
    kernel = source.depthwise.weight.abs().sum((1, 2, 3)) * source.depthwise.gain.abs()
    out = (source.project.weight[channels, :, 0, 0] * source.project.gain[channels, None]).abs().sum(0)
    worth = into.abs() * (kernel * out)[:, None]
    hidden: list[int] = []
    for channel in channels.tolist():
        worth[hidden[-1:]] = -1.0
        hidden.append(int(worth[:, channel].argmax()))
    chosen = torch.tensor(hidden)
    feeding = into[chosen, channels][:, None, None, None]
    own = LayerWeights(*(part[chosen] for part in source.depthwise))
    own = own._replace(weight=own.weight * feeding)
    everyone = torch.arange(len(chosen))
    return fill_layer(depthwise, own, everyone).plus(fill_layer(project, source.project, channels, chosen))


@torch.no_grad()
def quieten(block: nn.Module) -> bool:
    """Let a block hand on its input at first, as far as its last layer can be set to 0; whether it could.

    Args:
        block: of an encoder.
    """
    inner = getattr(block, "mlp", block)  # of the pooling mixer
    branch = getattr(inner, "branch", None)
    last = branch[-1] if branch is not None else getattr(block, "projection", None)
    if not isinstance(last, ConvNorm):
        return False
    if isinstance(scale := getattr(block, "scale", None), nn.Parameter):
        scale.zero_()
    folded = not isinstance(last.bn, nn.BatchNorm2d)
    for part in (last.c.weight, last.c.bias) if folded else (last.bn.weight, last.bn.bias):
        if part is not None:
            part.zero_()
    return True
