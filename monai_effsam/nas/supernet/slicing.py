# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Modules whose widths are chosen: the widest one holds the weights, a narrower one is made of their first channels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from monai_effsam.nas.supernet.norms import with_search_norms

__all__ = ["SlicedModule"]

_THIRDS = "qkv"
"""Layers of this name stack queries, keys and values; each third is cut by itself."""


class SlicedModule(nn.Module):
    """A module of the widest dimensions that can be run at narrower ones, at the cost of those.

    A narrow one is built as any network would build it, without memory, and run with cuts of the widest one's tensors;
    so a network derived from a search that copies these cuts computes the very same.

    Args:
        build: dimensions -> module; all of its tensors are cut from the front, those of `qkv` by thirds.
        widest: largest dimensions.
    """

    def __init__(self, build: Callable[..., nn.Module], *widest: int) -> None:
        """Build the widest."""
        super().__init__()
        self.build, self.widest = build, widest
        self.full = with_search_norms(build(*widest))
        self._templates: dict[tuple[int, ...], nn.Module] = {}

    def forward(self, dims: tuple[int, ...], *inputs: object) -> Tensor:
        """What the module of these dimensions gives."""
        if dims == self.widest:
            whole: Tensor = self.full(*inputs)
            return whole
        template = self._template(dims).train(self.training)
        cut: Tensor = functional_call(template, self.state(dims), inputs)
        return cut

    def state(self, dims: tuple[int, ...]) -> dict[str, Tensor]:
        """Parameters and buffers of the module of these dimensions: views of the widest one's, as far as can be."""
        full = {**dict(self.full.named_parameters()), **dict(self.full.named_buffers())}
        if dims == self.widest:
            return full
        shapes = self._template(dims).state_dict()
        return {name: _cut(name, full[name], shape.shape) for name, shape in shapes.items()}

    def _template(self, dims: tuple[int, ...]) -> nn.Module:
        if dims not in self._templates:
            with torch.device("meta"):
                self._templates[dims] = with_search_norms(self.build(*dims))
        return self._templates[dims]


def _cut(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """The part of a tensor that a narrower module has."""
    if tensor.shape == shape:
        return tensor
    if _THIRDS in name.split(".") and tensor.shape[0] != shape[0]:
        third, own = tensor.shape[0] // 3, shape[0] // 3
        parts = [tensor[i * third : i * third + own] for i in range(3)]
        tensor = torch.cat([part[:, : shape[1]] if part.ndim > 1 else part for part in parts])
    for axis, size in enumerate(shape):
        tensor = tensor.narrow(axis, 0, size)
    return tensor
