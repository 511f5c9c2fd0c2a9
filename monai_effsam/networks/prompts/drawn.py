# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Points and boxes drawn as a mask prompt, so that a small decoder sees where they are and need not learn it.

segment-anything tells positions by Fourier codes alone; a decoder learns to read them from a thousand million masks,
and a few thousand do not suffice (docs/adr/0010).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["draw_prompts"]

_INSIDE, _OUTSIDE = 4.0, -8.0  # logits within a box and without
_CLICK = 8.0  # logit of a click inside; outside it is the opposite
_RADIUS = 1 / 40  # of the disk around a click, as a fraction of the frame


def draw_prompts(
    points: Tensor, labels: Tensor, frame: Tensor, canvas: Tensor | None, like: Tensor
) -> Tensor:
    """Mask logits that show the prompts; only operations that an exporter can trace.

    A box is a filled rectangle, a click a disk on top of it; later ones cover earlier ones of the other side. On an
    earlier mask only clicks are drawn: it has been told of the box.

    Args:
        points: (R, P, 2), (x, y) in pixels of the prompt frame.
        labels: (R, P) int64: -1 none, 0 outside, 1 inside, 2 and 3 the corners of a box.
        frame: (W, H) of the prompt frame, (2,) [px].
        canvas: logits (R, 1, 4 h, 4 w) of an earlier mask, or None.
        like: (R, C, h, w), the embedding that the prompts are for.

    Returns:
        (R, 1, 4 h, 4 w).
    """
    ones = F.interpolate(torch.ones_like(like[:, :1]), scale_factor=4.0, mode="nearest")
    x = (ones.cumsum(3) - 0.5) / ones.shape[3]
    y = (ones.cumsum(2) - 0.5) / ones.shape[2]
    places = (points / frame)[:, :, :, None, None]
    kind = labels[:, :, None, None]
    if canvas is None:
        first, last = (
            ((labels == corner).to(points.dtype)[:, :, None] * points / frame).sum(1) for corner in (2, 3)
        )
        x0, y0, x1, y1 = (part.reshape(-1, 1, 1, 1) for part in (*first.unbind(1), *last.unbind(1)))
        inside = ((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)).to(ones.dtype)
        boxed = (labels == 2).to(ones.dtype).sum(1).reshape(-1, 1, 1, 1)
        canvas = boxed * (_OUTSIDE + (_INSIDE - _OUTSIDE) * inside)
    near = ((x - places[:, :, 0]) ** 2 + (y - places[:, :, 1]) ** 2 <= _RADIUS**2).to(ones.dtype)
    sign = (kind == 1).to(ones.dtype) - (kind == 0).to(ones.dtype)
    order = torch.ones_like(sign).cumsum(1)  # of several that touch a pixel the last one counts
    strongest = (near * sign.abs() * order).amax(1, keepdim=True)
    side = (near * sign * ((near * order) == strongest).to(ones.dtype)).sum(1, keepdim=True)
    clicked = (strongest > 0).to(ones.dtype)
    return canvas * (1 - clicked) + _CLICK * side * clicked
