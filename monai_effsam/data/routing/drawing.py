# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Small helpers to draw foreign pictures with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["SIDE", "any_colour", "coloured", "grid", "paper", "scaled", "spectrum_noise", "words"]

Pixels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

SIDE = 160
"""Side of drawn pictures [px]; views resize them."""

_LETTERS = list("eeeetttaaaooiinnsshhrrdlcumwfgypbvk")


def any_colour(random: np.random.RandomState) -> Colour:
    """A random colour, half of the time a grey."""
    if random.rand() < 0.5:
        grey = int(random.randint(256))
        return grey, grey, grey
    red, green, blue = (int(v) for v in random.randint(0, 256, 3))
    return red, green, blue


def paper(random: np.random.RandomState) -> tuple[Pixels, Colour]:
    """An empty page and the colour of its ink: mostly dark on light."""
    light, dark = int(random.randint(200, 256)), int(random.randint(0, 90))
    page, ink = (dark, light) if random.rand() < 0.2 else (light, dark)
    return np.full((SIDE, SIDE, 3), page, np.uint8), (ink, ink, ink)


def grid() -> tuple[Field, Field]:
    """(y, x) of every pixel, -1..1."""
    line = np.linspace(-1, 1, SIDE)
    y, x = np.meshgrid(line, line, indexing="ij")
    return y, x


def scaled(field: Field) -> Field:
    """A field stretched to 0..1."""
    return np.asarray((field - field.min()) / max(float(np.ptp(field)), 1e-9))


def coloured(field: Field, random: np.random.RandomState) -> Pixels:
    """A field (H, W), 0..1, from one random colour to another."""
    first, second = (np.array(any_colour(random), float) for _ in range(2))
    return np.asarray(first + field[..., None] * (second - first)).clip(0, 255).astype(np.uint8)


def spectrum_noise(random: np.random.RandomState, power: float) -> Field:
    """Noise (H, W) whose amplitude falls with frequency to `power`, 0..1."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    frequency[0, 0] = 1 / SIDE
    spectrum = np.fft.fft2(random.standard_normal((SIDE, SIDE))) / frequency**power
    return scaled(np.real(np.fft.ifft2(spectrum)))


def words(random: np.random.RandomState, most: int) -> str:
    """Letters that look like a line of text."""
    made: Sequence[str] = [
        "".join(random.choice(_LETTERS, random.randint(2, 10))) for _ in range(random.randint(1, most + 1))
    ]
    return " ".join(made)
