# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Views that leave no habit of one set to lean on: its shape, borders, aspect, resolution, compression or colour.

Every draw comes from one `RandomState`, so that a view can be made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from monai_effsam.data.routing.frames import framed

__all__ = ["GENTLE", "ViewChances", "is_grey", "routing_view"]

Pixels = npt.NDArray[np.uint8]

_LEAST = 24
"""Fewer pixels a side show no texture."""

_EMPTY, _TRIES = 8.0, 4
"""Parts of a lesser standard deviation [grey values] show nothing; so many are tried, then the whole is shown."""

_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX)


@dataclass(frozen=True, slots=True)
class ViewChances:
    """How often a view differs in one respect, each a probability.

    Args:
        crop: a part of the picture, of another aspect.
        flip: mirrored left and right.
        turn: turned upside down or by a quarter.
        border: margins added in one grey, as viewers and screenshots have them.
        coarse: resolution lost.
        tone: another window, contrast and brightness.
        grey: a colour picture as grey.
        tint: a grey picture in one hue, or the colours of a picture shifted.
        squeeze: JPEG compression.
        grain: noise.
        blur: out of focus.
        marks: letters, arrows and callipers burned in.
        deep: a small part only, so that texture must tell; in place of `crop`.
        frame: behind a fan, a circle or another shape on black.
        negative: a grey picture as its negative.
        contrast: MR in another contrast, as of another sequence: bright and dark tissue change places.
    """

    crop: float = 0.75
    flip: float = 0.5
    turn: float = 0.25
    border: float = 0.25
    coarse: float = 0.4
    tone: float = 0.7
    grey: float = 0.15
    tint: float = 0.2
    squeeze: float = 0.4
    grain: float = 0.2
    blur: float = 0.15
    marks: float = 0.1
    deep: float = 0.2
    frame: float = 0.2
    negative: float = 0.03
    contrast: float = 0.4


GENTLE = ViewChances(
    0.35, 0.5, 0.05, 0.1, 0.15, 0.3, 0.05, 0.05, 0.2, 0.05, 0.05, 0.05, 0.04, 0.05, 0.005, 0.1
)
"""Views of which most look like a picture that somebody might bring."""


def routing_view(
    image: Pixels,
    random: np.random.RandomState,
    size: int,
    chances: ViewChances | None = None,
    modality: str = "",
) -> Pixels:
    """One view of a picture.

    Args:
        image: (H, W, 3) uint8.
        random: gives every draw.
        size: side of the view [px].
        chances: how often it differs in what.
        modality: of the picture; empty where it is foreign.

    Returns:
        (size, size, 3) uint8; the aspect is not kept.
    """
    c = chances or ViewChances()
    drawn = {name: random.rand() < getattr(c, name) for name in c.__dataclass_fields__}
    drawn["contrast"] &= modality == "mr"
    shown = _shown(image, random, size, drawn)
    return _resized(_stored(shown, random, size, drawn), size, size)


def _shown(image: Pixels, random: np.random.RandomState, size: int, drawn: Mapping[str, bool]) -> Pixels:
    """Another part, pose, window or colour, and what a device writes on it."""
    image = _at_working_size(_posed(image, random, drawn), random, size)
    if drawn["contrast"]:
        image = _recontrasted(image, random)
    if drawn["tone"]:
        image = _toned(image, random)
    if drawn["tint"]:
        image = _tinted(image, random)
    elif drawn["grey"]:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if drawn["negative"] and is_grey(image):
        image = np.invert(image)
    if drawn["frame"]:
        image = framed(image, random)
    return _marked(image, random) if drawn["marks"] else image


def _posed(image: Pixels, random: np.random.RandomState, drawn: Mapping[str, bool]) -> Pixels:
    """A part of the picture, turned or mirrored."""
    image = _less_long(image, random)
    if drawn["deep"]:
        image = _cropped(image, random, 0.06, 0.35)
    elif drawn["crop"]:
        image = _cropped(image, random, 0.35, 1)
    if drawn["turn"]:
        image = np.asarray(np.rot90(image, random.randint(1, 4)), np.uint8)
    return np.ascontiguousarray(image[:, ::-1] if drawn["flip"] else image)


def _stored(image: Pixels, random: np.random.RandomState, size: int, drawn: Mapping[str, bool]) -> Pixels:
    """What viewers, screenshots and files do to it."""
    if drawn["border"]:
        image = _bordered(image, random)
    if drawn["coarse"]:
        image = _coarse(image, random, size)
    if drawn["blur"]:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), random.uniform(0.4, 1.6)), np.uint8)
    if drawn["grain"]:
        colours = 3 if random.rand() < 0.3 else 1
        noise = random.standard_normal((*image.shape[:2], colours)) * random.uniform(2, 18)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return _squeezed(image, random) if drawn["squeeze"] else image


def is_grey(image: Pixels) -> bool:
    """Whether (H, W, 3) pixels hold no colour, but for what compression leaves."""
    channels = image[::4, ::4].astype(np.int16)
    return bool((channels.max(-1) - channels.min(-1)).mean() < 3)


def _resized(image: Pixels, height: int, width: int) -> Pixels:
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def _cropped(image: Pixels, random: np.random.RandomState, least: float, most: float) -> Pixels:
    """A window of a share of the area, its aspect changed by a half at most, and of `_LEAST` pixels where there are."""
    height, width = image.shape[:2]
    side, aspect = random.uniform(least, most) ** 0.5, 1.5 ** random.uniform(-0.5, 0.5)
    rows, columns = (
        max(_LEAST, int(n * min(1, side * f))) for n, f in ((height, aspect), (width, 1 / aspect))
    )
    for _ in range(_TRIES):
        top, left = random.randint(max(1, height - rows + 1)), random.randint(max(1, width - columns + 1))
        part = image[top : top + rows, left : left + columns]
        if part[::2, ::2].std() >= _EMPTY:
            return part
    return image


def _less_long(image: Pixels, random: np.random.RandomState) -> Pixels:
    """A part no longer than twice its width, as of thin planes of a stack, which a square would stretch."""
    height, width = image.shape[:2]
    rows, columns = min(height, 2 * width), min(width, 2 * height)
    if (rows, columns) == (height, width):
        return image
    top, left = random.randint(height - rows + 1), random.randint(width - columns + 1)
    return image[top : top + rows, left : left + columns]


def _at_working_size(image: Pixels, random: np.random.RandomState, size: int) -> Pixels:
    """Once to twice the view's size, the aspect stretched by up to a third."""
    longest = size * random.uniform(1.0, 1.8)
    stretch = 1.35 ** random.uniform(-0.5, 0.5)
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    return _resized(image, max(8, round(height * scale * stretch)), max(8, round(width * scale / stretch)))


def _toned(image: Pixels, random: np.random.RandomState) -> Pixels:
    """Another window, gamma, contrast and brightness; of grey pictures a narrow window too."""
    level = np.linspace(0, 1, 256)
    if random.rand() < 0.4:
        narrow = is_grey(image)
        low, high = random.uniform(-0.2, 0.3 if narrow else 0.1), random.uniform(0.6 if narrow else 0.8, 1.3)
        level = np.clip((level - low) / (high - low), 0, 1)
    level = level ** (1.7 ** random.uniform(-1, 1))
    level = (level - 0.5) * random.uniform(0.6, 1.3) + 0.5 + random.uniform(-0.15, 0.15)
    return np.asarray(cv2.LUT(image, np.clip(level * 255 + 0.5, 0, 255).astype(np.uint8)), np.uint8)


def _recontrasted(image: Pixels, random: np.random.RandomState) -> Pixels:
    """Grey values along a random smooth curve from black, up and down: what tissue is bright depends on the sequence.

    CT has one scale of grey, so its views keep their order; this is what tells the two apart where shapes are alike.
    """
    places = np.array([0, 40, 90, 140, 190, 255])
    heights = np.concatenate([[0], random.uniform(0, 255, len(places) - 1)])
    curve = np.interp(np.arange(256), places, heights)
    smooth = np.convolve(np.pad(curve, 12, mode="edge"), np.full(25, 1 / 25), mode="valid")
    smooth *= np.minimum(1, np.arange(256) / 16)
    return np.asarray(cv2.LUT(image, smooth.clip(0, 255).astype(np.uint8)), np.uint8)


def _tinted(image: Pixels, random: np.random.RandomState) -> Pixels:
    """Channels scaled apart; of grey pictures farther, as on a tinted screen or a sepia scan."""
    reach = 0.35 if is_grey(image) else 0.15
    table = np.linspace(0, 255, 256)[:, None] * (1 + random.uniform(-reach, reach, 3))
    return np.asarray(cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8).reshape(1, 256, 3)), np.uint8)


def _marked(image: Pixels, random: np.random.RandomState) -> Pixels:
    """Letters, an arrow or callipers, as devices and readers burn them in."""
    out = image.copy()
    height, width = out.shape[:2]
    for _ in range(random.randint(1, 4)):
        grey = int(random.choice([255, 255, 200, 0]))
        colour = (
            (grey, grey, grey) if random.rand() < 0.7 else tuple(int(v) for v in random.randint(0, 256, 3))
        )
        x, y = int(random.randint(width)), int(random.randint(height))
        kind = random.randint(3)
        if kind == 0:
            text = "".join(random.choice(list("ABCDEFLRcm0123456789:./ "), random.randint(1, 10)))
            font, scale = int(random.choice(_FONTS)), height / random.uniform(150, 400)
            cv2.putText(out, text, (x, y), font, scale, colour, 1, cv2.LINE_AA)
        elif kind == 1:
            end = (x + int(random.uniform(-0.2, 0.2) * width), y + int(random.uniform(-0.2, 0.2) * height))
            cv2.arrowedLine(out, (x, y), end, colour, 1, cv2.LINE_AA)
        else:
            cv2.drawMarker(out, (x, y), colour, cv2.MARKER_CROSS, max(3, height // 25), 1)
    return out


def _bordered(image: Pixels, random: np.random.RandomState) -> Pixels:
    """Margins of up to a quarter on some of the sides."""
    height, width = image.shape[:2]
    sides = [int(n * random.uniform(0, 0.25)) * (random.rand() < 0.6) for n in (height, height, width, width)]
    grey = int(random.choice([0, 0, 0, 255, random.randint(256)]))
    top, bottom, left, right = sides
    height, width = height + top + bottom, width + left + right
    out = np.full((height, width, 3), grey, np.uint8)
    out[top : height - bottom, left : width - right] = image
    return out


def _coarse(image: Pixels, random: np.random.RandomState, size: int) -> Pixels:
    """As if it had been stored with fewer pixels."""
    height, width = image.shape[:2]
    side = random.uniform(0.3, 1.0) * size / max(height, width)
    return _resized(image, max(6, round(height * side)), max(6, round(width * side)))


def _squeezed(image: Pixels, random: np.random.RandomState) -> Pixels:
    quality = int(random.randint(15, 95))
    packed = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])
