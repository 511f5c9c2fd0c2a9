# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Drawn foreign pictures that the router is trained and calibrated on; see `foreign_kept` for those it is tested on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
import numpy.typing as npt

from monai_effsam.data.routing.drawing import (
    SIDE,
    any_colour,
    coloured,
    grid,
    paper,
    scaled,
    spectrum_noise,
    words,
)

__all__ = ["LEARNED"]

Pixels = npt.NDArray[np.uint8]
Random = np.random.RandomState

_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX)


def _white_noise(random: Random) -> Pixels:
    """Noise of each pixel for itself, grey or in colour, even or bell-shaped."""
    shape = (SIDE, SIDE, int(random.choice([1, 3])))
    if random.rand() < 0.5:
        field = random.randint(0, 256, shape).astype(float)
    else:
        field = random.uniform(60, 200) + random.standard_normal(shape) * random.uniform(10, 60)
    return np.broadcast_to(field.clip(0, 255).astype(np.uint8), (SIDE, SIDE, 3)).copy()


def _clouds(random: Random) -> Pixels:
    """Noise with more of the low frequencies, as photographs have them, between two colours or in three channels."""
    power = random.uniform(0.6, 2.2)
    if random.rand() < 0.6:
        return coloured(spectrum_noise(random, power), random)
    return np.asarray(np.stack([spectrum_noise(random, power) for _ in range(3)], -1) * 255).astype(np.uint8)


def _ramp(random: Random) -> Pixels:
    """A straight gradient."""
    y, x = grid()
    angle = random.uniform(0, 2 * np.pi)
    return coloured(scaled(x * np.cos(angle) + y * np.sin(angle)) ** random.uniform(0.5, 2), random)


def _plain(random: Random) -> Pixels:
    """One colour."""
    return np.full((SIDE, SIDE, 3), any_colour(random), np.uint8)


def _checkers(random: Random) -> Pixels:
    """A chess board of any cell."""
    cell = random.randint(2, 60)
    y, x = np.indices((SIDE, SIDE)) // cell
    return coloured(((x + y) % 2).astype(float), random)


def _stripes(random: Random) -> Pixels:
    """Hard stripes of any direction and width."""
    y, x = grid()
    angle, width = random.uniform(0, np.pi), random.uniform(0.05, 0.8)
    return coloured(((x * np.cos(angle) + y * np.sin(angle)) % width < width / 2).astype(float), random)


def _leaves(random: Random) -> Pixels:
    """Discs and polygons that hide each other, of many sizes: the edges and the colours of photographs."""
    out = np.full((SIDE, SIDE, 3), any_colour(random), np.uint8)
    palette = [any_colour(random) for _ in range(random.randint(3, 12))]
    for radius in sorted(np.exp(random.uniform(np.log(3), np.log(70), random.randint(20, 150))))[::-1]:
        colour = palette[random.randint(len(palette))]
        centre = random.randint(-20, SIDE + 20, 2)
        if random.rand() < 0.5:
            cv2.circle(out, (int(centre[0]), int(centre[1])), int(radius), colour, -1, cv2.LINE_AA)
        else:
            angles = np.sort(random.uniform(0, 2 * np.pi, random.randint(3, 7)))
            corners = centre + radius * np.stack([np.cos(angles), np.sin(angles)], -1)
            cv2.fillPoly(out, [corners.astype(np.int32)], colour, cv2.LINE_AA)
    texture = 1 + (spectrum_noise(random, random.uniform(0.3, 1.5)) - 0.5) * random.uniform(0, 0.8)
    return np.asarray(out * texture[..., None]).clip(0, 255).astype(np.uint8)


def _text(random: Random) -> Pixels:
    """Lines of text in plain fonts, as of a scanned page."""
    page, ink = paper(random)
    font, scale = int(random.choice(_FONTS)), random.uniform(0.25, 1.2)
    step = int(26 * scale + random.randint(2, 10))
    for y in range(step, SIDE, step):
        cv2.putText(page, words(random, 8), (random.randint(0, 16), y), font, scale, ink, 1, cv2.LINE_AA)
    return page


def _line_plot(random: Random) -> Pixels:
    """Curves between two axes, or bars."""
    page, ink = paper(random)
    left, bottom = random.randint(8, 30), SIDE - random.randint(8, 30)
    cv2.line(page, (left, 5), (left, bottom), ink, 1)
    cv2.line(page, (left, bottom), (SIDE - 5, bottom), ink, 1)
    if random.rand() < 0.4:
        for x in range(left + 6, SIDE - 12, int(random.randint(8, 24))):
            cv2.rectangle(page, (x, random.randint(10, bottom)), (x + 6, bottom), any_colour(random), -1)
        return page
    for _ in range(random.randint(1, 5)):
        along = np.linspace(left, SIDE - 5, 60)
        y = bottom - (bottom - 10) * scaled(np.cumsum(random.standard_normal(60)))
        points = np.stack([along, y], -1).astype(np.int32)
        cv2.polylines(
            page, [points], isClosed=False, color=any_colour(random), thickness=1, lineType=cv2.LINE_AA
        )
    return page


def _boxes(random: Random) -> Pixels:
    """Windows and buttons with a word each, as of a screen."""
    out = np.full((SIDE, SIDE, 3), any_colour(random), np.uint8)
    for _ in range(random.randint(3, 15)):
        x, y = (int(v) for v in random.randint(-10, SIDE, 2))
        w, h = (int(v) for v in random.randint(10, 110, 2))
        cv2.rectangle(out, (x, y), (x + w, y + h), any_colour(random), -1 if random.rand() < 0.7 else 1)
        cv2.putText(out, words(random, 1), (x + 3, y + 12), _FONTS[0], 0.35, any_colour(random), 1)
    return out


LEARNED: Mapping[str, Callable[[Random], Pixels]] = {
    "white noise": _white_noise,
    "clouds": _clouds,
    "ramp": _ramp,
    "plain": _plain,
    "checkers": _checkers,
    "stripes": _stripes,
    "leaves": _leaves,
    "text": _text,
    "line plot": _line_plot,
    "boxes": _boxes,
}
"""Kind -> draws one picture of `SIDE` pixels a side, (H, W, 3) uint8."""
