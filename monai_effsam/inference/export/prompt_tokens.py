# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""segment-anything's prompt arithmetic in a form that can be traced: no assignment to masked parts."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["grid_code", "prompt_embedding"]


def prompt_embedding(encoder: nn.Module, points: Tensor, labels: Tensor, size: Tensor) -> Tensor:
    """Prompt tokens as segment-anything's `PromptEncoder` makes them, the kinds of point told apart by index.

    Args:
        encoder: a `PromptEncoder`.
        points: (R, P, 2), (x, y) in pixels of the prompt frame.
        labels: (R, P) int64: -1 none, 0 outside, 1 inside, 2 and 3 the corners of a box.
        size: (W, H) of the frame, (2,) [px].

    Returns:
        (R, P, C).
    """
    parts = cast(dict[str, nn.Module], encoder._modules)
    code = parts["pe_layer"]._pe_encoding((points + 0.5) / size)  # type: ignore[operator]
    kinds = [parts["not_a_point_embed"], *cast(nn.ModuleList, parts["point_embeddings"])]
    weights = torch.cat([cast(nn.Embedding, kind).weight for kind in kinds])
    return cast(Tensor, code * (labels >= 0).unsqueeze(-1).to(code.dtype) + weights[labels + 1])


def grid_code(layer: nn.Module, embedding: Tensor) -> Tensor:
    """Position code of an embedding's grid, (1, C, h, w), whatever its size."""
    ones = torch.ones_like(embedding[0, 0])
    y = (ones.cumsum(0) - 0.5) / embedding.shape[2]
    x = (ones.cumsum(1) - 0.5) / embedding.shape[3]
    code = layer._pe_encoding(torch.stack([x, y], -1))  # type: ignore[operator]
    return cast(Tensor, code).permute(2, 0, 1).unsqueeze(0)
