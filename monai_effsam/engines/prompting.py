# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A user simulated from labels: boxes with jitter and clicks, for training what can be prompted."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["SimulatedObjects", "SimulatedPrompts", "error_clicks", "simulate_objects", "simulate_prompts"]


class SimulatedPrompts(NamedTuple):
    """One object a picture, with what a user might say about it.

    Attributes:
        target: (B,), place of the object's target among the modality's.
        label: (B, 1, H, W), the object alone.
        valid: (B,) bool; False where the picture holds nothing.
        points: (B, N, 2), (x, y) in pixels of the label, or None.
        labels: (B, N), 1 inside, 0 outside, -1 for no click (nothing is outside, or the row is not valid), or None.
        boxes: (B, 4), (x0, y0, x1, y1), or None.
    """

    target: Tensor
    label: Tensor
    valid: Tensor
    points: Tensor | None
    labels: Tensor | None
    boxes: Tensor | None


class SimulatedObjects(NamedTuple):
    """N objects a picture, with a box around each and a click into it.

    Attributes:
        label: (B, N, H, W), each object alone.
        valid: (B, N) bool; False where the picture holds nothing.
        boxes: (B, N, 4), (x0, y0, x1, y1).
        clicks: (B, N, 2), (x, y).
    """

    label: Tensor
    valid: Tensor
    boxes: Tensor
    clicks: Tensor


def simulate_objects(
    label: Tensor, known: Tensor, random: np.random.RandomState, count: int, *, jitter: float = 0.015
) -> SimulatedObjects:
    """Draw N times a target that is there, half of the time all of it, else one connected piece.

    Args:
        label: (B, T, H, W), 0 or 1.
        known: (B, T) bool.
        random: source of randomness.
        count: N.
        jitter: standard deviation of each box side, as a fraction of the frame's side.
    """
    batch, _, height, width = label.shape
    present = (label.flatten(2).amax(2) > 0) & known
    objects = torch.zeros(batch, count, height, width)
    boxes, clicks = torch.zeros(batch, count, 4), torch.zeros(batch, count, 2)
    for row in range(batch):
        there = torch.nonzero(present[row]).flatten().tolist()
        for place in range(count if there else 0):
            mask = label[row, there[random.randint(len(there))]].numpy() > 0.5
            if random.rand() < 0.5:
                mask = _piece(mask, random)
            objects[row, place] = torch.from_numpy(mask)
            boxes[row, place] = torch.tensor(_box(mask, random, jitter))
            clicks[row, place] = torch.tensor(_inside(mask, random))
    return SimulatedObjects(objects, present.any(1)[:, None].expand(-1, count), boxes, clicks)


def error_clicks(found: Tensor, label: Tensor, random: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """A click in each mask where it is wrong, anywhere in the error ("Segment Anything", arXiv 2304.02643, A).

    Args:
        found: (B, N, h, w) bool.
        label: (B, N, h, w) bool.
        random: source of randomness.

    Returns:
        (x, y) in pixels of the masks, (B, N, 2), and 1 where the click says inside, 0 outside, -1 where nothing is
        wrong, (B, N) int64.
    """
    places = torch.zeros(*found.shape[:2], 2)
    sides = torch.full(found.shape[:2], -1)
    wrong = (found != label).flatten(2).numpy()
    for row, column in np.argwhere(wrong.any(2)):
        cells = np.flatnonzero(wrong[row, column])
        y, x = divmod(int(cells[random.randint(len(cells))]), found.shape[-1])
        places[row, column] = torch.tensor([x + 0.5, y + 0.5])
        sides[row, column] = int(label[row, column, y, x])
    return places, sides


def simulate_prompts(
    label: Tensor, known: Tensor, random: np.random.RandomState, *, jitter: float = 0.02
) -> SimulatedPrompts:
    """Choose a target that is there, one connected piece of it or all of it, and a box, clicks or both.

    Args:
        label: (B, T, H, W), 0 or 1.
        known: (B, T) bool.
        random: source of randomness.
        jitter: standard deviation of each box side, as a fraction of the frame's side.
    """
    batch, _, height, width = label.shape
    present = (label.flatten(2).amax(2) > 0) & known
    targets = torch.zeros(batch, dtype=torch.long)
    object_label = torch.zeros(batch, 1, height, width)
    boxes, points = torch.zeros(batch, 4), torch.zeros(batch, 2, 2)
    clicks = torch.full((batch, 2), -1)
    kind = ("box", "points", "both")[random.choice(3, p=[0.5, 0.35, 0.15])]
    whole = kind == "box" and random.rand() < 0.5
    for row in range(batch):
        there = torch.nonzero(present[row]).flatten().tolist()
        if not there:
            continue
        targets[row] = there[random.randint(len(there))]
        mask = label[row, targets[row]].numpy() > 0.5
        piece = mask if whole else _piece(mask, random)
        object_label[row, 0] = torch.from_numpy(piece.astype(np.float32))
        boxes[row] = torch.tensor(_box(piece, random, jitter))
        places = _clicks(piece, random)
        points[row, : len(places)] = torch.tensor(places)
        clicks[row, : len(places)] = torch.tensor([1, 0])[: len(places)]
    with_points = kind != "box"
    return SimulatedPrompts(
        targets,
        object_label,
        present.any(1),
        points if with_points else None,
        clicks if with_points else None,
        boxes if kind != "points" else None,
    )


def _piece(mask: npt.NDArray[np.bool_], random: np.random.RandomState) -> npt.NDArray[np.bool_]:
    """One connected piece, drawn by its area."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count <= 2:
        return mask
    area = stats[1:, cv2.CC_STAT_AREA].astype(float)
    return np.asarray(pieces == 1 + random.choice(count - 1, p=area / area.sum()))


def _box(mask: npt.NDArray[np.bool_], random: np.random.RandomState, jitter: float) -> list[float]:
    """The object's box, every side moved by itself; inside the frame, and a pixel wide and high."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    moved = np.array([x0, y0, x1, y1]) + random.randn(4) * jitter * np.array([width, height, width, height])
    left, right = sorted(np.clip(moved[[0, 2]], 0, width))
    top, bottom = sorted(np.clip(moved[[1, 3]], 0, height))
    if right - left < 1:
        left, right = x0, x1
    if bottom - top < 1:
        top, bottom = y0, y1
    return [float(left), float(top), float(right), float(bottom)]


def _clicks(mask: npt.NDArray[np.bool_], random: np.random.RandomState) -> list[list[float]]:
    """A click inside and, unless the mask fills the frame, one outside."""
    clicks = [_inside(mask, random)]
    ys, xs = np.nonzero(~mask)
    if len(ys):
        pick = random.randint(len(ys))
        clicks.append([float(xs[pick]) + 0.5, float(ys[pick]) + 0.5])
    return clicks


def _inside(mask: npt.NDArray[np.bool_], random: np.random.RandomState) -> list[float]:
    """(x, y) in a mask, half of the time of its deepest pixel."""
    if random.rand() < 0.5:
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    else:
        ys, xs = np.nonzero(mask)
        pick = random.randint(len(ys))
        y, x = ys[pick], xs[pick]
    return [float(x) + 0.5, float(y) + 0.5]
