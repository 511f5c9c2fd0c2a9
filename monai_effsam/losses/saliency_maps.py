# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Saliency maps, (B, h, w) each: from features, gradients or attention; differentiable where a student needs it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_effsam.errors import ShapeError

__all__ = ["activation_map", "attention_rollout", "grad_cam", "input_gradient", "token_attention"]


def activation_map(features: Tensor, power: float = 2.0) -> Tensor:
    """Mean over channels of |F|^p: where features are strong.

    "Paying More Attention to Attention", arXiv 1612.03928. Take features from before a LayerNorm over channels: behind
    it every position has the same energy, and the map says nothing.

    Args:
        features: (B, C, h, w).
        power: p.
    """
    return features.float().abs().pow(power).mean(1)


def grad_cam(score: Tensor, features: Tensor, *, differentiable: bool = False) -> Tensor:
    """ReLU of the sum over channels of mean(dy / dF_c) F_c: what raises a score.

    "Grad-CAM", Selvaraju et al., arXiv 1610.02391.

    Args:
        score: y, a scalar or one value an image; its sum is taken, images must not see each other.
        features: (B, C, h, w) that the score was computed from.
        differentiable: keep the graph, so that a loss of the map trains a student (second order).
    """
    (gradient,) = torch.autograd.grad(score.sum(), features, create_graph=differentiable, retain_graph=True)
    weight = gradient.mean((2, 3), keepdim=True)
    found = (weight * features).sum(1).relu()
    return found if differentiable else found.detach()


def input_gradient(score: Tensor, image: Tensor, *, differentiable: bool = False) -> Tensor:
    """Largest |dy / dx| over the channels of each pixel.

    "Deep Inside Convolutional Networks", Simonyan et al., arXiv 1312.6034. Noisy: smooth it, or average over noise.

    Args:
        score: y, a scalar or one value an image.
        image: (B, C, H, W) that requires a gradient.
        differentiable: keep the graph.
    """
    (gradient,) = torch.autograd.grad(score.sum(), image, create_graph=differentiable, retain_graph=True)
    return gradient.abs().amax(1)


def attention_rollout(attentions: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """What all positions together look at, through all layers: mean row of the product of (mean_h A + I) / 2.

    "Quantifying Attention Flow in Transformers", Abnar and Zuidema, arXiv 2005.00928.

    Args:
        attentions: of each layer, first to last, (B, heads, N, N) with rows that sum to 1; N = h w.
        grid: (h, w).

    Raises:
        ShapeError: N is not h w.
    """
    count = attentions[0].shape[-1]
    if count != grid[0] * grid[1]:
        raise ShapeError(
            f"attention_rollout: attention has {count} positions, expected {grid[0]} x {grid[1]}."
            " Leave other tokens out."
        )
    row = attentions[0].new_full((len(attentions[0]), 1, count), 1 / count)
    for attention in reversed(attentions):
        row = 0.5 * (row @ attention.mean(1) + row)
    return row.reshape(-1, *grid)


def token_attention(query: Tensor, key: Tensor, grid: tuple[int, int], heads: int = 8) -> Tensor:
    """Where a token looks in the image: mean over heads of softmax(q k^T / sqrt(d)).

    For SAM's decoder: outputs of `final_attn_token_to_image`'s `q_proj` (the row of the mask token used) and `k_proj`.
    The decoder has one shape in teacher and student, so these maps compare without resizing.

    Args:
        query: (B, C) of the token.
        key: (B, N, C) of the image's positions; N = h w.
        grid: (h, w).
        heads: that C is split into.

    Raises:
        ShapeError: heads that do not divide C, or N that is not h w.
    """
    batch, count, channels = key.shape
    if channels % heads or count != grid[0] * grid[1]:
        raise ShapeError(
            f"token_attention: key has shape {tuple(key.shape)}, expected (B, {grid[0]} x {grid[1]}, C) with C a"
            f" multiple of {heads} heads. Give the grid that the keys lie on."
        )
    q = query.view(batch, heads, 1, -1)
    k = key.view(batch, count, heads, -1).permute(0, 2, 3, 1)
    weight = (q @ k / (channels // heads) ** 0.5).softmax(-1)  # (B, heads, 1, N)
    return weight.mean(1).reshape(batch, *grid)
