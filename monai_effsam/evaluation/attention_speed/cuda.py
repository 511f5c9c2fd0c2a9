# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Local attention on a GPU: its forms, window attention of the same receptive field, NATTEN, and what memory allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_effsam.evaluation.attention_speed.operators import MODES
from monai_effsam.networks.layers import AttentionWindow, local_attention
from monai_effsam.networks.layers.local_attention.plain import attend_plainly
from monai_effsam.networks.layers.local_attention.triton_form import attend_in_triton

__all__ = ["GpuShape", "copy_rate", "gpu_calls", "gpu_row", "least_ms_in_turns", "window_attention"]


_CLEARED = 1 << 30
"""Bytes that are cleared before each call."""


class GpuShape(NamedTuple):
    """Sizes of the comparison: so many images that their maps do not stay in a GPU's cache."""

    batch: int = 16
    channels: int = 64
    heads: int = 2
    side: int = 128


Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def window_attention(q: Tensor, k: Tensor, v: Tensor, size: int, heads: int) -> Tensor:
    """Attention inside windows that do not overlap, of the side `size`: torch's own on (B, C, H, W) maps.

    Every query sees as many keys as in local attention, but not those around it. The map is padded with zeros to whole
    windows.
    """
    height, width = q.shape[2:]
    below, right = -height % size, -width % size
    rows, columns = (height + below) // size, (width + right) // size

    def windows(x: Tensor) -> Tensor:
        x = F.pad(x, (0, right, 0, below)).view(len(x), heads, -1, rows, size, columns, size)
        return x.permute(0, 3, 5, 1, 4, 6, 2).reshape(len(x) * rows * columns, heads, size * size, -1)

    found = F.scaled_dot_product_attention(windows(q), windows(k), windows(v))
    found = found.view(len(q), rows, columns, heads, size, size, -1).permute(0, 3, 6, 1, 4, 2, 5)
    return found.reshape(len(q), -1, height + below, width + right)[:, :, :height, :width]


def _natten(size: int, heads: int) -> Attention:
    """Neighbourhood attention, whose windows move inwards at the border."""
    from natten import na2d  # type: ignore[import-not-found, unused-ignore]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        by_head = (x.view(len(x), heads, -1, *x.shape[2:]) for x in (q, k, v))
        tokens = (x.permute(0, 3, 4, 1, 2).contiguous() for x in by_head)
        return na2d(*tokens, kernel_size=size).permute(0, 3, 4, 1, 2).flatten(1, 2)

    return attend


def gpu_calls(
    size: int, shape: GpuShape, compiled: Callable[[Attention], Attention] = torch.compile
) -> dict[str, Attention]:
    """What is compared, by name; the Triton form in both its ways where Triton is installed, and NATTEN likewise.

    Args:
        size: side of the window.
        shape: sizes of the maps.
        compiled: what compiles the plain form.
    """
    window, heads, scale = AttentionWindow((size, size)), shape.heads, (shape.channels // shape.heads) ** -0.5
    calls: dict[str, Attention] = {}
    if find_spec("triton"):
        calls["triton, products"] = lambda q, k, v: attend_in_triton(q, k, v, heads, window, scale, True)
        calls["triton, sums"] = lambda q, k, v: attend_in_triton(q, k, v, heads, window, scale, False)
    calls["compiled plain"] = compiled(lambda q, k, v: attend_plainly(q, k, v, heads, window, scale))
    calls["tiles"] = lambda q, k, v: local_attention(q, k, v, window, heads=heads, form="tiles")
    calls["automatic"] = lambda q, k, v: local_attention(q, k, v, window, heads=heads)
    calls["window attention"] = lambda q, k, v: window_attention(q, k, v, size, heads)
    if find_spec("natten"):
        calls["NATTEN"] = _natten(size, heads)
    return calls


def least_ms_in_turns(calls: Mapping[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, float]:
    """Least time of each call until the device has done it [ms], after one that warms up; all take turns."""
    least = dict.fromkeys(calls, float("inf"))
    cleared = torch.empty(_CLEARED if device == "cuda" else 0, dtype=torch.uint8, device=device)
    for number in range(rounds + 1):
        for name, call in calls.items():
            took = _took(call, cleared)
            least[name] = min(least[name], took) if number else least[name]
    return least


def _took(call: Callable[[], Any], cleared: Tensor) -> float:
    """Time of one call [ms]: on a GPU between two events in its queue.

    Before it, the GPU clears as much memory as its cache takes in; meanwhile the call is put into the queue, so that
    its launch from Python does not count.
    """
    if not cleared.is_cuda:
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1000
    new: Callable[..., Any] = torch.cuda.Event
    first, last = new(enable_timing=True), new(enable_timing=True)
    torch.cuda.synchronize()
    cleared.zero_()
    first.record()
    call()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last))


def copy_rate(device: str, values: int = 1 << 28, rounds: int = 10) -> float:
    """Bytes that a copy reads and writes in a second."""
    source = torch.zeros(values, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2e3 * values / least_ms_in_turns({"copy": lambda: target.copy_(source)}, rounds, device)["copy"]


def gpu_row(
    size: int, shape: GpuShape, mode: str, kind: torch.dtype, rounds: int, rate: float, device: str = "cuda",
    compiled: Callable[[Attention], Attention] = torch.compile,
) -> dict[str, Any]:  # fmt: skip
    """Times of all that is compared [ms], and the time in which memory could move what must be moved.

    Inference reads three maps and writes one; backward reads five more and writes three.

    Args:
        size: side of the window.
        shape: sizes of the maps.
        mode: one of `MODES`.
        kind: number format of the maps.
        rounds: turns that count.
        rate: of `copy_rate`.
        device: `cuda`; `cpu` tries the comparison out.
        compiled: as in `gpu_calls`.
    """
    sides = shape.batch, shape.channels, shape.side, shape.side
    q, k, v, grad = torch.randn(4, *sides, device=device).to(kind).unbind(0)
    leaves = [x.detach().requires_grad_(mode != MODES[0]) for x in (q, k, v)]

    def runs(attend: Attention) -> Callable[[], Any]:
        if mode == MODES[0]:
            return lambda: torch.inference_mode()(attend)(*leaves)
        return lambda: torch.autograd.grad(attend(*leaves), leaves, grad)

    calls = {name: runs(attend) for name, attend in gpu_calls(size, shape, compiled).items()}
    moved = q.numel() * q.element_size() * (4 if mode == MODES[0] else 12)
    return {
        "window": size,
        "mode": mode,
        "kind": str(kind).removeprefix("torch."),
        "ms": least_ms_in_turns(calls, rounds, device),
        "limit_ms": 1000 * moved / rate,
    }
