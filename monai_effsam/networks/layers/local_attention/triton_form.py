# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Local attention in Triton kernels, for CUDA: each map is read once and written once, and nothing is padded.

`triton_tiles.py` (matrix products) or `triton_offsets.py` (sums) does the work, `triton_place.py` says where. The
backward keeps query, key, value, output and the logarithm of the softmax's denominator. Works without a GPU in
Triton's interpreter, slowly: TRITON_INTERPRET=1 before the first use.
"""

from __future__ import annotations

import logging
import math
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from monai_effsam.errors import MissingExtraError, ShapeError, UsageError
from monai_effsam.networks.layers.local_attention.plain import attend_plainly
from monai_effsam.networks.layers.local_attention.window import AttentionWindow

__all__ = ["agrees", "attend_in_triton", "check_triton", "triton_serves"]

log = logging.getLogger(__name__)

_PRODUCT_CHANNELS = 16
"""Channels of a head that a matrix product of the hardware needs at least."""
_SUM_CHANNELS = 32
"""Channels of a head that a thread can hold of each map that it needs."""
_BYTES = 256
"""Channels of a head at most, in bytes: more do not fit into every multiprocessor."""
_TILES = {True: (8, 8), False: (8, 16)}
"""Rows and columns of a tile of products, and of sums."""
_BLOCK = 32
"""Positions that a tile is multiplied with at once: a warp reads them in one go, since their loads are laid out for
themselves; with as many as the tile has, Triton would lay them out as the tile's, several to a thread."""
_SECTOR = 32
"""Bytes that memory gives at least: channels_last heads of fewer are put in columns first."""
_CAPABILITY = 8
"""Compute capability from which on all number formats and copies behind the products exist."""
_APART = 0.05
"""Difference at a first try that half precision and TensorFloat-32 explain, of values up to about 1."""
_VALUES = 1 << 29
"""Values of one image at most: they are counted in 32 bits, with gaps where q, k and v are slices of one map."""


@cache
def _is_installed() -> bool:
    """Whether there is a Triton."""
    return find_spec("triton") is not None


def triton_serves(q: Tensor, channels: int) -> bool:
    """Whether the form suits maps like `q` with heads of so many channels, on a device where it is fast.

    Not while `torch.compile` reads the network, which would have to break its graph there.
    """
    if torch.compiler.is_compiling():
        return False
    if not q.is_cuda or not _is_small(q, channels) or not _is_installed():
        return False
    return torch.cuda.get_device_capability(q.device)[0] >= _CAPABILITY and agrees(
        q.device, q.dtype, channels
    )


@cache
def agrees(device: torch.device, kind: torch.dtype, channels: int) -> bool:
    """Whether a first try gives what the plain form gives, gradients too; else a warning, and other forms serve.

    Tried once a process: kernels are compiled for hardware and drivers that no test has seen.
    """
    shape = (1, 2 * channels, 9, 11)
    ramp = torch.arange(3 * math.prod(shape), dtype=torch.float64, device=device)
    window = AttentionWindow((3, 3))
    found = []
    with torch.inference_mode(mode=False), torch.enable_grad():
        maps = ramp.mul(0.7).sin().view(3, *shape).to(kind)
        for attend, number in ((attend_in_triton, kind), (attend_plainly, torch.float32)):
            leaves = [x.to(number, copy=True).requires_grad_() for x in maps]
            try:
                out = attend(leaves[0], leaves[1], leaves[2], 2, window, channels**-0.5)
                found.append(torch.stack([out.detach(), *torch.autograd.grad(out.sum(), leaves)]).float())
            except Exception as error:  # noqa: BLE001  whatever a compiler or driver says
                log.warning("local attention: Triton's kernels do not run on %s: %s", device, error)
                return False
    apart = float((found[0] - found[1].to(found[0])).abs().max())
    if not apart <= _APART:
        log.warning(
            "local attention: Triton's kernels are %.3g off on %s, so they are not used", apart, device
        )
    return apart <= _APART


def check_triton(q: Tensor, channels: int) -> None:
    """Refuse maps that the form cannot take at all.

    Raises:
        MissingExtraError: Triton is not installed.
        UsageError: maps that are not on a CUDA device, outside Triton's interpreter.
        ShapeError: heads of too many channels, or too large an image.
    """
    if not _is_installed():
        raise MissingExtraError("triton")
    if not q.is_cuda and not _is_interpreted():
        raise UsageError(
            f"local_attention: maps are on '{q.device}' in the form 'triton', expected a CUDA device."
            " Move them to one, or take the form 'auto'."
        )
    if not _is_small(q, channels):
        raise ShapeError(
            f"local_attention: heads have {channels} channels of {q.element_size()} bytes and an image has"
            f" {q.shape[1:].numel()} values in the form 'triton', expected at most {_BYTES} bytes and fewer than"
            f" {_VALUES} values. Take the form 'auto'."
        )


def _is_small(q: Tensor, channels: int) -> bool:
    """Whether heads and images keep the limits."""
    return channels * q.element_size() <= _BYTES and q.shape[1:].numel() < _VALUES


def _is_interpreted() -> bool:
    """Whether Triton was told to run its kernels in Python."""
    from monai_effsam.networks.layers.local_attention.triton_tiles import INTERPRETED

    return INTERPRETED


def attend_in_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    window: AttentionWindow,
    scale: float,
    products: bool | None = None,
) -> Tensor:
    """Local attention of (B, C, H, W) maps, any H and W; differentiable once, refuses a second derivative.

    Half-precision maps are read as they are and summed in single precision. Products of single-precision maps follow
    `torch.backends.cuda.matmul`: TensorFloat-32 where that is allowed.

    Args:
        q: queries, in columns or channels_last order; what is in neither is copied.
        k: keys, as `q`.
        v: values, as `q`.
        heads: groups of channels.
        window: size, dilation and border.
        scale: of the logits.
        products: matrix products, or sums; None chooses.
    """
    if products is None:
        products = _products_pay(q, q.shape[1] // heads)
    last = q.shape[1] > 1 and q.stride(1) == 1 and q.shape[1] // heads * q.element_size() >= _SECTOR
    call = _Call(heads, window, scale, products, last)
    return cast(Tensor, _TritonAttention.apply(q, k, v, call))  # type: ignore[no-untyped-call]


def _products_pay(q: Tensor, channels: int) -> bool:
    """Whether the hardware has fast products for such maps, or threads cannot hold what sums need."""
    if channels < _PRODUCT_CHANNELS or q.dtype == torch.float64:
        return False
    if q.dtype == torch.bfloat16 and not q.is_cuda:
        return False  # Triton's interpreter multiplies their bits
    return q.dtype != torch.float32 or channels > _SUM_CHANNELS or _precision() == "tf32"


def _precision() -> str:
    """Triton's name for how torch was told to multiply single precision."""
    matmul: Any = torch.backends.cuda.matmul
    allowed = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return "tf32" if allowed else "ieee"


class _Call(NamedTuple):
    """What is the same in both passes; `last` says that channels lie next to each other in memory."""

    heads: int
    window: AttentionWindow
    scale: float
    products: bool
    last: bool

    @property
    def kernels(self) -> Any:
        """The module that has them."""
        from monai_effsam.networks.layers.local_attention import triton_offsets, triton_tiles

        return triton_tiles if self.products else triton_offsets

    def constants(self, q: Tensor) -> dict[str, Any]:
        """What the kernels are compiled for, for maps like `q`."""
        window, (rows, columns) = self.window, _TILES[self.products]
        channels, precision = q.shape[1] // self.heads, _precision()
        found: dict[str, Any] = {
            "SCALE": self.scale,
            "D": channels,
            "BLOCK_D": max(_PRODUCT_CHANNELS if self.products else 1, 1 << (channels - 1).bit_length()),
            **dict(zip(("KH", "KW", "DY", "DX"), (*window.size, *window.dilation), strict=True)),
            "TY": rows,
            "TX": columns,
            "WRAP": window.border == "circular",
            "LAST": self.last,
            "num_warps": 4,
        }
        if self.products:
            found |= {"N": _BLOCK, "PRECISION": precision, "num_stages": 2}
            if q.dtype == torch.float32 and precision == "ieee":
                found["num_warps"] = 8  # no tensor cores: threads hold the sums, and half of them could not
        return found

    def grid(self, shape: torch.Size) -> tuple[int]:
        """Number of programs: one for each tile of each phase, in each head of each image."""
        tiles = 1
        for side, step, tile in zip(shape[2:], self.window.dilation, _TILES[self.products], strict=True):
            tiles *= step * -(-side // (step * tile))
        return (tiles * shape[0] * self.heads,)

    def empty(self, like: Tensor) -> Tensor:
        """A map without gaps."""
        order = torch.channels_last if self.last else torch.contiguous_format
        return torch.empty(like.shape, dtype=like.dtype, device=like.device, memory_format=order)

    def ordered(self, x: Tensor) -> Tensor:
        """The map itself if its positions are evenly apart, in the right order of memory; else a copy that is."""
        adjacent = x.stride(1) if self.last else _step(x)
        if adjacent == 1 and (x.shape[2] == 1 or x.stride(2) == x.shape[3] * _step(x)):
            return x
        return x.contiguous(memory_format=torch.channels_last if self.last else torch.contiguous_format)


def _step(x: Tensor) -> int:
    """From a position to the next."""
    return x.stride(3) if x.shape[3] > 1 else x.stride(2)


def _strides(*maps: Tensor) -> list[int]:
    """Steps of batch, channel and position, of one map after the other."""
    return [step for x in maps for step in (x.stride(0), x.stride(1), _step(x))]


class _TritonAttention(torch.autograd.Function):
    """Both passes in kernels."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, call: _Call) -> Tensor:
        """(B, C, H, W) maps -> (B, C, H, W), in the order of memory of the queries."""
        q, k, v = (call.ordered(x) for x in (q, k, v))
        out = call.empty(q)
        kind = torch.float64 if q.dtype == torch.float64 else torch.float32
        sums = q.new_empty(q.shape[0], call.heads, *q.shape[2:], dtype=kind)
        numbers = *q.shape[2:], call.heads, *_strides(q, k, v)
        with torch.cuda.device(q.device if q.is_cuda else -1):
            call.kernels.attend[call.grid(q.shape)](
                q, k, v, out, sums, *numbers, ZEROS=call.window.border == "zero",
                **call.constants(q),
            )  # fmt: skip
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.call = call
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k and v."""
        q, k, v, out, sums = ctx.saved_tensors
        call: _Call = ctx.call
        grad = call.ordered(grad)
        means, grads = torch.empty_like(sums), [call.empty(q) for _ in range(3)]
        numbers = *q.shape[2:], call.heads, *_strides(q, k, v, grad)
        constants, grid = call.constants(q), call.grid(q.shape)
        with torch.cuda.device(q.device if q.is_cuda else -1):
            call.kernels.to_queries[grid](
                q, k, v, out, grad, sums, means, grads[0], *numbers, ZEROS=call.window.border == "zero",
                **constants,
            )  # fmt: skip
            call.kernels.to_keys_and_values[grid](
                q, k, v, grad, sums, means, *grads[1:], *numbers, **constants
            )
        return (*grads, None)
