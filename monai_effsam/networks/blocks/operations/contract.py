# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What every operation of a searched network offers, and the table of those that exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from monai_effsam.errors import SpecError, UnknownNameError

__all__ = [
    "LEAST_STEP",
    "OPERATIONS",
    "SKIP",
    "WIDTH_STEP",
    "ComputeCost",
    "Operation",
    "build_operation",
    "convolution_cost",
    "find_operation",
    "register_operation",
]

WIDTH_STEP = 16
"""Every width is a multiple of it: groups and heads have that many channels, as a register of AVX-512 has numbers."""

LEAST_STEP = 8
"""Widths of stages whose operations have neither groups nor heads may be multiples of this, as those of MobileNets."""

SKIP = "skip"
"""The operation that hands on its input; a network leaves it out."""


class ComputeCost(NamedTuple):
    """Arithmetic and size of a part of a network, for one image.

    Attributes:
        macs: multiply-accumulates of its convolutions and matrix products.
        parameters: its trainable numbers.
    """

    macs: int = 0
    parameters: int = 0

    def plus(self, other: ComputeCost) -> ComputeCost:
        """Both parts together."""
        return ComputeCost(self.macs + other.macs, self.parameters + other.parameters)


@dataclass(frozen=True)
class Operation:
    """One candidate for a block: (B, C, H, W) -> (B, C, H, W), C a multiple of `step`.

    Args:
        name: in tables and files.
        build: C -> module.
        cost: (C, H, W) -> its closed form.
        reference: only timed beside the others; no search space may choose it.
        step: of C.
    """

    name: str
    build: Callable[[int], nn.Module]
    cost: Callable[[int, int, int], ComputeCost]
    reference: bool = False
    step: int = WIDTH_STEP


OPERATIONS: dict[str, Operation] = {}
"""Name -> operation; filled by the explicit imports of `monai_effsam.networks.blocks.operations`."""


def register_operation(operation: Operation) -> Operation:
    """Enter an operation into `OPERATIONS`.

    Raises:
        SpecError: the name is taken.
    """
    if operation.name in OPERATIONS:
        raise SpecError(f"operation '{operation.name}': is registered already, expected a new name.")
    OPERATIONS[operation.name] = operation
    return operation


def find_operation(name: str) -> Operation:
    """The operation of that name.

    Raises:
        UnknownNameError: none has it.
    """
    if name not in OPERATIONS:
        raise UnknownNameError("operation", name, OPERATIONS)
    return OPERATIONS[name]


def build_operation(name: str, channels: int) -> nn.Module:
    """A fresh module of an operation.

    Args:
        name: one of `OPERATIONS`.
        channels: C.

    Raises:
        UnknownNameError: no operation has the name.
        SpecError: C is no multiple of the operation's step.
    """
    operation = find_operation(name)
    step = operation.step
    if channels < step or channels % step:
        raise SpecError(
            f"operation '{name}': channels are {channels}, expected a positive multiple of {step}. Choose one."
        )
    return operation.build(channels)


def convolution_cost(
    inputs: int, outputs: int, kernel: int, cells: int, *, groups: int = 1, norm: bool = True
) -> ComputeCost:
    """Cost of a square convolution without bias, with the two numbers a channel of a norm after it.

    Args:
        inputs: its input channels.
        outputs: its output channels.
        kernel: its side.
        cells: of its output, H' * W'.
        groups: of channels.
        norm: whether a norm follows.
    """
    weights = inputs // groups * outputs * kernel * kernel
    return ComputeCost(weights * cells, weights + (2 * outputs if norm else 0))
