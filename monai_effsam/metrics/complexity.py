# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Size and arithmetic of any network: parameters, multiply-accumulates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["count_macs", "count_parameters"]


def count_parameters(network: nn.Module, *, trainable_only: bool = False) -> int:
    """Number of parameters; shared ones count once."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trainable_only)


def count_macs(call: Callable[[], Any]) -> int:
    """Multiply-accumulates of the matrix products and convolutions that a call makes.

    Half of what PyTorch's `FlopCounterMode` counts; additions, norms and activations are left out, as usual.

    Args:
        call: runs the network once, such as `lambda: network(image)`; gradients are off.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode  # heavy, and of use here only

    # not no_grad: there a view of a parameter asks for gradients all the same, and the counter's hooks fail on it
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops()) // 2
