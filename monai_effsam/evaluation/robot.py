# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A user simulated from the label: a box or a click, then a click where the answer is most wrong.

The same for every model: what is drawn at random depends on the seed, the jitter and the name of the object alone.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import UsageError
from monai_effsam.inference.answers import Encoding
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.specs import Prompts

__all__ = ["RobotAnswer", "RobotUser", "answers_of", "jittered_box", "next_click"]

Start = Literal["box", "points"]

_FRAME = 1024
"""Jitter is told in pixels of a picture whose longest side is this."""


@dataclass(frozen=True, slots=True)
class RobotUser:
    """How the simulated user prompts.

    Args:
        start: `box` begins with a box around all of the target, `points` with a click at its deepest pixel.
        clicks: clicks in all; with `box`, those that follow it.
        jitter: how far each side of the box and each click strays at most, in pixels of a picture whose longest side
            is 1024: uniform between -jitter and +jitter, independently.
        seed: of the straying.

    Raises:
        UsageError: numbers that make no user.
    """

    start: Start
    clicks: int
    jitter: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a user who does nothing, or unsteadily so."""
        least = 1 if self.start == "points" else 0
        if self.clicks < least:
            raise UsageError(f"robot: clicks is {self.clicks}, expected at least {least} with {self.start}.")
        if self.jitter < 0:
            raise UsageError(f"robot: jitter is {self.jitter}, expected 0 or more pixels.")

    @property
    def rounds(self) -> tuple[str, ...]:
        """What was prompted at each round, in words."""
        counts = [f"{n} click{'s' if n > 1 else ''}" for n in range(1, self.clicks + 1)]
        return tuple(counts) if self.start == "points" else ("box", *(f"box + {count}" for count in counts))

    def random(self, name: str) -> np.random.Generator:
        """Source of the straying for the object of that name."""
        return np.random.default_rng((self.seed, self.jitter, zlib.crc32(name.encode())))

    def stray(self, size: tuple[int, int]) -> float:
        """The jitter in pixels of a picture of (H, W)."""
        return self.jitter * max(size) / _FRAME


class RobotAnswer(NamedTuple):
    """What a model answers in one round.

    Attributes:
        mask: (H, W) bool.
        quality: its estimate of IoU, 0..1.
        presence: its probability that the target is there, 0..1.
        ms: time of the decoder, its masks brought back to the picture [ms]; 0 if nothing was left to mend and the
            answer is that of the round before.
    """

    mask: NDArray[np.bool_]
    quality: float
    presence: float
    ms: float


def answers_of(
    segmenter: Segmenter,
    encoding: Encoding,
    target: str | None,
    drawn: NDArray[np.bool_],
    user: RobotUser,
    name: str,
) -> Iterator[RobotAnswer]:
    """A model's answers to a simulated user, one a round.

    Args:
        segmenter: the model.
        encoding: of one slice.
        target: name of the target; None for one that a promptable model has no name for.
        drawn: (H, W) bool, its label on the slice; not empty.
        user: how it prompts.
        name: of the object, for the straying.
    """
    random = user.random(name)
    box = jittered_box(drawn, user, random) if user.start == "box" else None
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    answer: RobotAnswer | None = None
    for number in range(len(user.rounds)):
        if number or box is None:
            click = next_click(drawn, None if answer is None else answer.mask, user, random)
            if click is None and answer is not None:  # nothing to mend
                answer = answer._replace(ms=0.0)
                yield answer
                continue
            if click is not None:
                points.append(click[0])
                labels.append(click[1])
        answer = _decode(segmenter, encoding, target, Prompts(tuple(points), tuple(labels), box))
        yield answer


def jittered_box(
    drawn: NDArray[np.bool_], user: RobotUser, random: np.random.Generator
) -> tuple[float, float, float, float]:
    """The box that frames a label, each side strayed by itself; inside the picture, and at least a pixel wide.

    Args:
        drawn: (H, W) bool, not empty.
        user: says how far sides stray.
        random: from `RobotUser.random`; four numbers are drawn.

    Returns:
        (x0, y0, x1, y1) in pixels; without jitter the outer edges of the outermost pixels.
    """
    height, width = drawn.shape
    columns, rows = np.flatnonzero(drawn.any(0)), np.flatnonzero(drawn.any(1))
    tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
    moved = tight + random.uniform(-1, 1, 4) * user.stray((height, width))
    x0, x1 = _side(moved[0], moved[2], width)
    y0, y1 = _side(moved[1], moved[3], height)
    return x0, y0, x1, y1


def next_click(
    drawn: NDArray[np.bool_],
    answer: NDArray[np.bool_] | None,
    user: RobotUser,
    random: np.random.Generator,
) -> tuple[tuple[float, float], int] | None:
    """Where a user would click, and whether that is inside (1) or outside (0); None if nothing is wrong.

    Without an answer, the pixel of the label that is farthest from its outline; else the like of the largest
    connected region that is missing or too much. Of equals the first in reading order, the missing first.

    Args:
        drawn: (H, W) bool, not empty.
        answer: (H, W) bool, or None before the first.
        user: says how far clicks stray.
        random: from `RobotUser.random`; two numbers are drawn for each click.

    Returns:
        ((x, y), label); the centre of the pixel, strayed, inside the picture.
    """
    region = drawn if answer is None else _largest(drawn & ~answer, answer & ~drawn)
    if region is None:
        return None
    depth = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    row, column = np.unravel_index(int(depth[1:-1, 1:-1].argmax()), drawn.shape)
    height, width = drawn.shape
    x, y = np.array([column + 0.5, row + 0.5]) + random.uniform(-1, 1, 2) * user.stray((height, width))
    place = float(np.clip(x, 0.5, width - 0.5)), float(np.clip(y, 0.5, height - 0.5))
    return place, int(drawn[row, column])


def _side(first: float, second: float, end: int) -> tuple[float, float]:
    """Two ends in order, inside 0..end and at least a pixel apart."""
    low, high = sorted((min(max(float(first), 0.0), end), min(max(float(second), 0.0), end)))
    if high - low < 1:
        low = min(max((low + high) / 2 - 0.5, 0.0), end - 1.0)
        high = low + 1.0
    return low, high


def _largest(*masks: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The largest of the connected regions of some masks (corners connect); None if all are empty."""
    best, size = None, 0
    for mask in masks:
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        areas = stats[1:, cv2.CC_STAT_AREA]
        if count > 1 and areas.max() > size:
            best, size = np.asarray(pieces == 1 + int(areas.argmax())), int(areas.max())
    return best


def _decode(segmenter: Segmenter, encoding: Encoding, target: str | None, prompts: Prompts) -> RobotAnswer:
    start = time.perf_counter()
    decoded = segmenter.decode(encoding, targets=[target] if target else None, prompts=prompts)
    ms = (time.perf_counter() - start) * 1000
    mask = decoded.mask[0] == decoded.targets[0].value
    return RobotAnswer(mask, float(decoded.quality[0, 0]), float(decoded.presence[0, 0]), ms)
