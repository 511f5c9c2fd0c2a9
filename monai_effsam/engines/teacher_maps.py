# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Where a teacher looks, beyond what a forward pass leaves behind: gradients of its masks, attention of its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.errors import UsageError
from monai_effsam.losses.saliency_maps import input_gradient
from monai_effsam.networks.foreign import import_segment_anything
from monai_effsam.networks.nets import PromptableSam
from monai_effsam.specs import Placement

__all__ = [
    "GlobalAttention",
    "global_attention",
    "gradient_map",
    "last_norm",
    "mask_score",
    "middle_corners",
    "rollout_map",
]

GlobalAttention = list[tuple[nn.Module, Tensor]]
"""Attention module of each global block, first to last, and the tokens (B, h, w, C) that entered it."""

Corners = Sequence[tuple[float, float]]
"""Two opposite corners of a box, (x, y)."""


def middle_corners(place: Placement) -> list[tuple[float, float]]:
    """The box around the middle half of a picture, in the prompt frame."""
    height, width = place.source
    return place.to_model([(0.25 * width, 0.25 * height), (0.75 * width, 0.75 * height)])


def mask_score(logits: Tensor) -> Tensor:
    """How sure masks are: the sum of their positive logits, one value an image.

    Args:
        logits: (B, ...).
    """
    return logits.float().relu().flatten(1).sum(1)


def gradient_map(network: PromptableSam, image: Tensor, boxes: Sequence[Corners]) -> Tensor:
    """What pixels its masks hang on, averaged over the cells of its embedding, the largest value 1.

    Args:
        network: its parameters take no gradients.
        image: (1, 3, S, S).
        boxes: one or more, in the prompt frame.

    Returns:
        (h, w).
    """
    corners = [[[*first, *last] for first, last in boxes]]
    with torch.inference_mode(False), torch.enable_grad():
        pixels = image.clone().requires_grad_()
        wanted = torch.tensor(corners, dtype=torch.float32, device=image.device)
        encoded = network.encode(pixels)
        found = input_gradient(mask_score(network.decode(encoded, boxes=wanted).mask_logits), pixels).detach()
    height, width = encoded.embedding.shape[-2:]
    cells = F.adaptive_avg_pool2d(found[:, None].float(), (height, width))[0, 0]
    return cells / cells.max().clamp(min=1e-12)


@contextmanager
def global_attention(encoder: nn.Module) -> Iterator[GlobalAttention]:
    """Listen to the blocks of a SAM ViT that attend everywhere, while its encoder runs.

    Raises:
        UsageError: an encoder without such blocks.
    """
    blocks = [b for b in getattr(encoder, "blocks", ()) if getattr(b, "window_size", None) == 0]
    attentions = [block.attn for block in blocks if hasattr(block.attn, "qkv")]
    if not attentions:
        raise UsageError(
            f"Teacher: {type(encoder).__name__} has no block that attends everywhere, expected SAM's ViT for rollout. "
            "Choose another saliency."
        )
    heard: GlobalAttention = []
    hooks = [
        one.register_forward_pre_hook(lambda module, args: heard.append((module, args[0])))
        for one in attentions
    ]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def rollout_map(layers: Sequence[tuple[nn.Module, Tensor]]) -> Tensor:
    """Attention rollout through global blocks, see `attention_rollout`, a head at a time: all would fill the memory.

    Args:
        layers: of `global_attention`.

    Returns:
        (B, h, w), the largest value of each image 1.
    """
    batch, height, width, _ = layers[0][1].shape
    count = height * width
    row = layers[0][1].new_full((batch, 1, count), 1 / count)
    for module, tokens in reversed(layers):
        row = 0.5 * (_looked(module, tokens, row) + row)
    found = row.reshape(batch, height, width)
    return found / found.amax((1, 2), keepdim=True)


def _looked(module: nn.Module, tokens: Tensor, row: Tensor) -> Tensor:
    """A row of weights (B, 1, N) times the mean attention of all heads."""
    add_positions = import_segment_anything().modeling.image_encoder.add_decomposed_rel_pos
    attn: Any = module
    batch, height, width, _ = tokens.shape
    grid, heads = (height, width), int(attn.num_heads)
    qkv = attn.qkv(tokens).reshape(batch, height * width, 3, heads, -1)
    total = torch.zeros_like(row)
    for head in range(heads):
        query, key = qkv[:, :, 0, head], qkv[:, :, 1, head]
        weight = (query * attn.scale) @ key.transpose(-2, -1)
        if attn.use_rel_pos:
            weight = add_positions(weight, query, attn.rel_pos_h, attn.rel_pos_w, grid, grid)
        total += row @ weight.softmax(-1)
    return total / heads


def last_norm(encoder: nn.Module) -> nn.Module:
    """The channel norm that an encoder ends in.

    Raises:
        UsageError: it has none.
    """
    norms = [module for module in encoder.modules() if type(module).__name__ == "LayerNorm2d"]
    if not norms:
        raise UsageError(
            f"Teacher: {type(encoder).__name__} has no channel norm, expected one for saliency. Leave saliency out."
        )
    return norms[-1]
