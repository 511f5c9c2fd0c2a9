# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Batch norms of a search: statistics of the batch at hand, over all processes, and no scale of their own."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SearchNorm", "with_search_norms"]


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes; its gradient is summed likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


class SearchNorm(nn.BatchNorm2d):
    """BatchNorm2d that in training neither learns a scale nor keeps statistics; in evaluation it uses its buffers.

    Candidates that are drawn seldom would have statistics of long ago, and a learned scale would let a candidate's
    weight in the mixture hide in it. The buffers are filled for one architecture at a time by `recalibrate`. Scale and
    shift are buffers too, 1 and 0 unless they were inherited; they stay as they are.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        """With a scale of 1 and no shift."""
        super().__init__(channels, affine=False)
        for name, value in (("weight", torch.ones(channels)), ("bias", torch.zeros(channels))):
            delattr(self, name)
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); in training by the statistics of the batches of all processes together."""
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _summed(x.sum((0, 2, 3), keepdim=True)) / count
        centred = x - mean
        variance = _summed(centred.square().sum((0, 2, 3), keepdim=True)) / count
        scale = (variance + self.eps).rsqrt() * self.weight[:, None, None]
        return centred * scale + self.bias[:, None, None]


def _summed(x: Tensor) -> Tensor:
    found: Tensor = _SumOverProcesses.apply(x)  # type: ignore[no-untyped-call]
    return found


def with_search_norms(root: nn.Module) -> nn.Module:
    """A module with every BatchNorm2d in it made a `SearchNorm`; keys of the buffers stay."""
    for name, module in list(root.named_modules()):
        if type(module) is nn.BatchNorm2d:
            parent, _, last = name.rpartition(".")
            setattr(root.get_submodule(parent), last, SearchNorm(module.num_features))
    return root
