# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Drawn foreign pictures that the router is tested on and never sees in training; see `foreign_learned`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
import numpy.typing as npt

from monai_effsam.data.routing.drawing import SIDE, any_colour, coloured, grid, paper, scaled, words

__all__ = ["KEPT"]

Pixels = npt.NDArray[np.uint8]
Random = np.random.RandomState

_FONTS = (
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
)


def _salt(random: Random) -> Pixels:
    """Single bright and dark pixels on one colour."""
    out = np.full((SIDE, SIDE, 3), any_colour(random), np.uint8)
    chance = random.rand(SIDE, SIDE)
    share = random.uniform(0.02, 0.3)
    out[chance < share], out[chance > 1 - share] = 0, 255
    return out


def _octaves(random: Random) -> Pixels:
    """Sums of smooth random grids, as games draw clouds."""
    field = np.zeros((SIDE, SIDE))
    for octave in range(2, 2 + random.randint(2, 6)):
        coarse = random.rand(2**octave, 2**octave).astype(np.float32)
        field += cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / 2.0**octave
    return coloured(scaled(field), random)


def _rings(random: Random) -> Pixels:
    """A gradient around a point, or rings."""
    y, x = grid()
    centre = random.uniform(-0.6, 0.6, 2)
    radius = np.hypot(y - centre[0], x - centre[1])
    if random.rand() < 0.5:
        return coloured(scaled(radius), random)
    return coloured(0.5 + 0.5 * np.cos(radius * random.uniform(10, 80)), random)


def _waves(random: Random) -> Pixels:
    """Two soft gratings over each other."""
    y, x = grid()
    field = np.zeros((SIDE, SIDE))
    for _ in range(2):
        angle, pitch = random.uniform(0, np.pi), random.uniform(8, 90)
        field += np.sin((x * np.cos(angle) + y * np.sin(angle)) * pitch)
    return coloured(scaled(field), random)


def _dots(random: Random) -> Pixels:
    """Discs on a grid, every second row shifted."""
    out = np.full((SIDE, SIDE, 3), any_colour(random), np.uint8)
    colour, pitch = any_colour(random), int(random.randint(8, 40))
    for row, y in enumerate(range(0, SIDE + pitch, pitch)):
        for x in range((row % 2) * pitch // 2, SIDE + pitch, pitch):
            cv2.circle(out, (x, y), max(1, int(pitch * 0.3)), colour, -1, cv2.LINE_AA)
    return out


def _cells(random: Random) -> Pixels:
    """Each pixel in the colour of the nearest of some points."""
    y, x = np.indices((SIDE, SIDE))
    points = random.uniform(0, SIDE, (random.randint(5, 60), 2))
    nearest = np.argmin((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2, -1)
    return np.array([any_colour(random) for _ in points], np.uint8)[nearest]


def _letter(random: Random) -> Pixels:
    """A page in script or roman fonts: heading, paragraphs of two columns, a signature."""
    page, ink = paper(random)
    font, scale = int(random.choice(_FONTS)), random.uniform(0.25, 0.6)
    cv2.putText(page, words(random, 2), (10, 22), font, 2 * scale, ink, 1, cv2.LINE_AA)
    columns = (8,) if random.rand() < 0.5 else (8, SIDE // 2 + 4)
    for y in range(40, SIDE - 20, int(30 * scale) + 3):
        for x in columns:
            cv2.putText(
                page,
                words(random, 3)[: 14 if len(columns) > 1 else 40],
                (x, y),
                font,
                scale,
                ink,
                1,
                cv2.LINE_AA,
            )
    cv2.putText(page, words(random, 1), (SIDE // 2, SIDE - 8), _FONTS[1], 0.7, ink, 1, cv2.LINE_AA)
    return page


def _table(random: Random) -> Pixels:
    """A ruled table with numbers in its cells."""
    page, ink = paper(random)
    wide, high = int(random.randint(20, 55)), int(random.randint(10, 24))
    for x in range(4, SIDE, wide):
        cv2.line(page, (x, 4), (x, SIDE - 4), ink, 1)
    for y in range(4, SIDE, high):
        cv2.line(page, (4, y), (SIDE - 4, y), ink, 1)
        for x in range(6, SIDE, wide):
            number = str(random.randint(10 ** random.randint(1, 5)))
            cv2.putText(page, number, (x, y + high - 3), cv2.FONT_HERSHEY_COMPLEX_SMALL, 0.4, ink, 1)
    return page


def _points_plot(random: Random) -> Pixels:
    """Marks of several clouds of points, or a pie."""
    page, ink = paper(random)
    if random.rand() < 0.4:
        cuts = np.sort(random.uniform(0, 360, random.randint(3, 8)))
        for low, high in zip(cuts, [*cuts[1:], cuts[0] + 360], strict=True):
            half = SIDE // 2
            cv2.ellipse(page, (half, half), (60, 60), 0, float(low), float(high), any_colour(random), -1)
        return page
    cv2.rectangle(page, (10, 10), (SIDE - 10, SIDE - 10), ink, 1)
    for _ in range(random.randint(1, 5)):
        colour, mark = any_colour(random), int(random.randint(0, 7))
        centre, spread = random.uniform(40, 120, 2), random.uniform(5, 30)
        for x, y in (centre + spread * random.standard_normal((40, 2))).astype(int).tolist():
            cv2.drawMarker(page, (x, y), colour, mark, 5, 1)
    return page


def _code(random: Random) -> Pixels:
    """A bar code or a square code."""
    page, ink = paper(random)
    margin = int(random.randint(5, 30))
    if random.rand() < 0.5:
        cell = int(random.randint(3, 8))
        count = (SIDE - 2 * margin) // cell
        bits = (random.rand(count, count) < 0.5).repeat(cell, 0).repeat(cell, 1)
        page[margin : margin + count * cell, margin : margin + count * cell][bits] = ink
    else:
        bars = random.rand(SIDE - 2 * margin) < 0.5
        page[margin:-margin, margin:-margin][:, bars] = ink
    return page


def _map(random: Random) -> Pixels:
    """Bands of height with contour lines."""
    field = cv2.resize(random.rand(5, 5).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    bands = random.randint(4, 12)
    level = np.floor(scaled(field.astype(np.float64)) * bands).astype(int).clip(0, bands - 1)
    out = np.array([any_colour(random) for _ in range(bands)], np.uint8)[level]
    edges = (np.abs(np.diff(level, axis=0))[:, :-1] + np.abs(np.diff(level, axis=1))[:-1]) > 0
    out[:-1, :-1][edges] = any_colour(random)
    return out


KEPT: Mapping[str, Callable[[Random], Pixels]] = {
    "salt": _salt,
    "octaves": _octaves,
    "rings": _rings,
    "waves": _waves,
    "dots": _dots,
    "cells": _cells,
    "letter": _letter,
    "table": _table,
    "points plot": _points_plot,
    "code": _code,
    "map": _map,
}
"""Kind -> draws one picture of `SIDE` pixels a side, (H, W, 3) uint8."""
