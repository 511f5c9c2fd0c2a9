# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Shapes that devices show pictures in: fans, circles, ellipses, rounded rectangles, outlines of bodies.

A set often has one shape (a fan for ultrasound, a circle for fundus photographs), and a network that learns the shape
instead of the tissue fails on the next device. Here any picture may get any shape.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["SHAPES", "framed"]

Pixels = npt.NDArray[np.uint8]
Random = np.random.RandomState
Mask = npt.NDArray[np.uint8]

_INSIDE, _OUTSIDE = (255,), (0,)


def framed(image: Pixels, random: Random) -> Pixels:
    """A picture (H, W, 3) behind a random shape, the rest black or nearly so; the shape may be smaller than it."""
    height, width = image.shape[:2]
    names = list(SHAPES)
    mask = SHAPES[names[random.randint(len(names))]](height, width, random)
    if random.rand() < 0.3:
        mask = np.ascontiguousarray(mask[::-1])
    inside = cv2.GaussianBlur(mask, (0, 0), random.uniform(0.3, 1.2)).astype(np.float32)[..., None] / 255
    ground = float(random.choice([0, 0, 0, random.uniform(0, 40), 255], p=[0.3, 0.3, 0.2, 0.15, 0.05]))
    return (image * inside + ground * (1 - inside) + 0.5).astype(np.uint8)


def _fan(height: int, width: int, random: Random) -> Mask:
    """A sector below a probe: curved (cut off above) or phased (from a point)."""
    mask = np.zeros((height, width), np.uint8)
    radius = height * random.uniform(0.9, 1.1)
    inner = radius * random.choice([0.0, random.uniform(0.1, 0.35)])
    half = random.uniform(25, 50)
    middle = (int(width * random.uniform(0.42, 0.58)), int(-inner * random.uniform(0.5, 1.0)))
    outer = radius + inner * 0.5
    cv2.ellipse(mask, middle, (int(outer), int(outer)), 90, -half, half, _INSIDE, -1)
    if inner > 1:
        cv2.circle(mask, middle, int(inner), _OUTSIDE, -1)
    return mask


def _ellipse(height: int, width: int, random: Random) -> Mask:
    """A head, a body, a lens."""
    mask = np.zeros((height, width), np.uint8)
    axes = (int(width * random.uniform(0.3, 0.5)), int(height * random.uniform(0.3, 0.5)))
    middle = (int(width * random.uniform(0.42, 0.58)), int(height * random.uniform(0.42, 0.58)))
    cv2.ellipse(mask, middle, axes, random.uniform(-30, 30), 0, 360, _INSIDE, -1)
    return mask


def _circle(height: int, width: int, random: Random) -> Mask:
    """A field of view, cut off above and below where it is larger than the picture."""
    mask = np.zeros((height, width), np.uint8)
    radius = int(min(height, width) * random.uniform(0.42, 0.62))
    cv2.circle(mask, (width // 2, height // 2), radius, _INSIDE, -1)
    return mask


def _rounded(height: int, width: int, random: Random) -> Mask:
    """A rectangle with cut or rounded corners, as endoscopes show."""
    mask = np.zeros((height, width), np.uint8)
    left, right = (int(width * random.uniform(0, 0.18)) for _ in range(2))
    top, bottom = (int(height * random.uniform(0, 0.15)) for _ in range(2))
    x0, x1, y0, y1 = left, width - 1 - right, top, height - 1 - bottom
    cut = int(min(height, width) * random.uniform(0.03, 0.22))
    corners = [(x0 + cut, y0), (x1 - cut, y0), (x1, y0 + cut), (x1, y1 - cut), (x1 - cut, y1), (x0 + cut, y1),
               (x0, y1 - cut), (x0, y0 + cut)]  # fmt: skip
    cv2.fillPoly(mask, [np.array(corners, np.int32)], _INSIDE)
    return mask


def _blob(height: int, width: int, random: Random) -> Mask:
    """An outline of a body: an ellipse whose radius waves."""
    mask = np.zeros((height, width), np.uint8)
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    wave = 1 + sum(
        random.uniform(-0.12, 0.12) * np.cos(k * angle + random.uniform(0, 6.3)) for k in (1, 2, 3, 4)
    )
    x = width * (0.5 + random.uniform(0.3, 0.45) * wave * np.cos(angle))
    y = height * (0.5 + random.uniform(0.3, 0.45) * wave * np.sin(angle))
    cv2.fillPoly(mask, [np.stack([x, y], -1).astype(np.int32)], _INSIDE)
    return mask


SHAPES: dict[str, Callable[[int, int, Random], Mask]] = {
    "fan": _fan,
    "ellipse": _ellipse,
    "circle": _circle,
    "rounded": _rounded,
    "blob": _blob,
}
"""Shape -> draws its mask (H, W), 255 inside."""
