# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""MSA-Conv: a convolution whose weights are those of self-attention inside its window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from monai_effsam.errors import SpecError
from monai_effsam.networks.layers.cyclic_shift import CyclicShift
from monai_effsam.networks.layers.inter_pooling import InterPooling
from monai_effsam.networks.layers.local_attention import AttentionWindow, local_attention
from monai_effsam.networks.layers.local_attention.window import Border, pair

__all__ = ["MSAConv2d"]

_PROJECTIONS = ("conv", "pointwise", "none")


class MSAConv2d(nn.Module):
    """Self-attention inside a sliding window, then a convolution; drop-in for `nn.Conv2d` of an odd kernel.

    z = attention(q, k, v) + x with [q, k, v] a 1x1 convolution of x, y = ReLU(projection(z)); see `local_attention`.
    "TiC: Exploring Vision Transformer in Convolution", arXiv 2310.04134. The defaults are the release's, but for the
    projection's padding: half of the kernel, so that stride 1 keeps the size at every kernel. Heads, the depthwise
    form, shift and pooling are named by the paper and not in its release; they are our reading.

    Parameters: 3 C^2 + 3 C + k_h k_w C C_out; dilation, heads, shift and pooling add none.

    Args:
        in_channels: C.
        out_channels: C_out; C without projection.
        kernel_size: of window and projection, odd, one number or (rows, columns).
        stride: step of the projection [px of the map]; the attention itself has none.
        dilation: of the window [px of the map]; the projection has none.
        heads: of the attention; they divide C.
        depthwise: a head for every channel, and a projection that mixes no channels.
        shift: step of a `CyclicShift` of keys and values; None for none.
        wrap: whether that shift goes round.
        inter_pool: cell p of an `InterPooling` of keys and values, which multiplies the dilation by p; None for none.
        border: what the window meets beyond the map, one of `BORDERS`; a circular one holds for the projection too.
        projection: `conv` of the kernel's size, `pointwise` of 1x1, or `none`.
        residual: add x before the projection.
        act: `relu` or None.
        dropout: of the attention's weights, in training.
        qkv_bias: whether q, k and v have a bias.
        bias: whether the projection has one.

    Raises:
        SpecError: an even kernel, heads that do not divide C, a projection that does not fit.
    """

    def __init__(  # noqa: PLR0913  a convolution's own list, and that of an attention
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        *,
        heads: int = 1,
        depthwise: bool = False,
        shift: int | None = None,
        wrap: bool = True,
        inter_pool: int | None = None,
        border: Border = "zero",
        projection: Literal["conv", "pointwise", "none"] = "conv",
        residual: bool = True,
        act: Literal["relu"] | None = "relu",
        dropout: float = 0.0,
        qkv_bias: bool = True,
        bias: bool = False,
    ) -> None:
        """Build with PyTorch's default initialisation."""
        super().__init__()
        heads = in_channels if depthwise else heads
        if heads < 1 or in_channels % heads:
            raise SpecError(
                f"MSAConv2d: heads is {heads} for {in_channels} channels, expected a divisor of them."
                f" Choose one, or depthwise=True for a head for every channel."
            )
        if act not in ("relu", None):
            raise SpecError(
                f"MSAConv2d: act is '{act}', expected 'relu' or None. Add another one after the layer."
            )
        size, (rows, columns) = pair(kernel_size), pair(dilation)
        cell = inter_pool or 1
        self.window = AttentionWindow(size, (rows * cell, columns * cell), border)
        self.heads, self.residual, self.act, self.dropout = heads, residual, act, dropout
        self.stride = pair(stride)
        self.qkv = nn.Conv2d(in_channels, 3 * in_channels, 1, bias=qkv_bias)
        self.shift = CyclicShift(heads, shift, wrap=wrap) if shift else None
        self.inter_pool = InterPooling(cell, border) if cell != 1 else None
        groups = in_channels if depthwise else 1
        self.projection = _projection(
            projection, in_channels, out_channels, self.window, self.stride, groups, bias
        )

    def attend(self, x: Tensor) -> Tensor:
        """The attention alone, without residual and projection: (B, C, H, W) -> (B, C, H, W)."""
        self.window.check_map(*x.shape[2:])
        q, k, v = self.qkv(x).chunk(3, 1)
        for layer in (self.inter_pool, self.shift):
            k, v = (k, v) if layer is None else (layer(k), layer(v))
        dropout = self.dropout if self.training else 0.0
        return local_attention(q, k, v, self.window, heads=self.heads, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), any H and W -> (B, C_out, ceil(H / stride), ceil(W / stride))."""
        z = self.attend(x)
        z = z + x if self.residual else z
        down, right = self.stride
        y = z[:, :, ::down, ::right] if self.projection is None else cast(Tensor, self.projection(z))
        return F.relu(y) if self.act else y


def _projection(
    kind: str,
    in_channels: int,
    out_channels: int,
    window: AttentionWindow,
    stride: tuple[int, int],
    groups: int,
    bias: bool,
) -> nn.Conv2d | None:
    """The convolution after the attention, None for none."""
    if kind not in _PROJECTIONS:
        raise SpecError(
            f"MSAConv2d: projection is '{kind}', expected one of {', '.join(_PROJECTIONS)}. Choose one of them."
        )
    if kind == "none" and out_channels != in_channels:
        raise SpecError(
            f"MSAConv2d: out_channels is {out_channels} without projection, expected {in_channels} as in_channels."
            " Give the same number, or projection='pointwise'."
        )
    if out_channels % groups:
        raise SpecError(
            f"MSAConv2d: out_channels is {out_channels} in the depthwise form, expected a multiple of {groups}."
            " Give one, or depthwise=False and a number of heads."
        )
    if kind == "none":
        return None
    size = window.size if kind == "conv" else (1, 1)
    mode: Literal["circular", "zeros"] = "circular" if window.border == "circular" else "zeros"
    around = size[0] // 2, size[1] // 2
    return nn.Conv2d(
        in_channels, out_channels, size, stride, around, groups=groups, bias=bias, padding_mode=mode
    )
