# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""An `ImageSpec` applied to a picture and undone on the masks; numpy and OpenCV only."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from monai_effsam.data.resizing import resized
from monai_effsam.data.tidy import as_ellipse, keep_pieces
from monai_effsam.data.tissue import stretch_tissue
from monai_effsam.errors import ShapeError
from monai_effsam.specs import ImageSpec, MaskRule, Placement
from monai_effsam.targets import Target

__all__ = ["apply_spec", "label_map", "mask_scores", "normalise", "toned", "undo"]

_MAX_WARP = 32_000  # OpenCV's warp has 15 bits for a side


def toned(rgb: npt.NDArray[np.uint8], spec: ImageSpec) -> npt.NDArray[np.uint8]:
    """The part of a spec's intensity rule that comes before resizing (and, in training, before variation)."""
    return stretch_tissue(rgb) if spec.intensity == "tissue" else rgb


def normalise(rgb: npt.NDArray[np.uint8], spec: ImageSpec) -> npt.NDArray[np.float32]:
    """Pixels (H, W, 3), 0..255, to the network's range, (3, H, W) float32."""
    if spec.intensity == "minmax":
        low, high = float(rgb.min()), float(rgb.max())
        gain, offset = 1.0 / max(high - low, 1.0), low
    else:
        gain, offset = 1.0 / 255.0, 0.0
    scale = (gain / np.asarray(spec.std)).astype(np.float32)
    shift = ((-offset * gain - np.asarray(spec.mean)) / np.asarray(spec.std)).astype(np.float32)
    out = rgb.astype(np.float32)
    out *= scale
    out += shift
    return np.ascontiguousarray(out.transpose(2, 0, 1))


def apply_spec(rgb: npt.NDArray[np.uint8], spec: ImageSpec) -> tuple[npt.NDArray[np.float32], Placement]:
    """A picture as the encoder wants it.

    Args:
        rgb: (H, W, 3), 0..255.
        spec: the encoder's specification.

    Returns:
        (3, S, S) float32 and how the picture lies in it.

    Raises:
        ShapeError: not an (H, W, 3) uint8 array.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ShapeError(f"apply_spec: image has shape {rgb.shape} {rgb.dtype}, expected (H, W, 3) uint8.")
    rgb = toned(rgb, spec)
    placement = spec.place(rgb.shape[:2])
    height, width = placement.content
    if (height, width) != rgb.shape[:2]:
        rgb = resized(rgb, (height, width), spec.interpolation)
    image = normalise(rgb, spec)
    rows, columns = placement.frame[0] - height, placement.frame[1] - width
    if rows or columns:
        image = np.pad(image, ((0, 0), (0, rows), (0, columns)), constant_values=spec.pad_value)
    return image, placement


def undo(logits: npt.NDArray[np.float32], placement: Placement) -> npt.NDArray[np.float32]:
    """Mask logits (T, h, w) over the model's frame back to the source image, (T, H, W), bilinear."""
    height, width = placement.source
    rows = placement.content[0] * logits.shape[1] / placement.frame[0]
    columns = placement.content[1] * logits.shape[2] / placement.frame[1]
    is_whole = rows.is_integer() and columns.is_integer()
    # OpenCV puts pixel centres at integers; where the content ends within a cell, only this map keeps in register
    matrix = np.array(
        [[columns / width, 0, columns / width / 2 - 0.5], [0, rows / height, rows / height / 2 - 0.5]]
    )
    out = np.empty((len(logits), height, width), np.float32)
    for layer, target in zip(logits, out, strict=True):
        if is_whole or max(height, width) > _MAX_WARP:
            part = np.ascontiguousarray(layer[: max(1, round(rows)), : max(1, round(columns))])
            target[...] = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
        else:
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            target[...] = cv2.warpAffine(
                layer, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
            )
    return out


def mask_scores(
    logits: npt.NDArray[np.float32], placement: Placement, rule: MaskRule
) -> npt.NDArray[np.float32]:
    """Mask logits (T, h, w) over the model's frame to scores (T, H, W) of the source image, above 0 in the mask.

    Args:
        logits: of a promptable network, mostly a quarter of its frame.
        placement: how the source image lies in the frame.
        rule: the spec's `mask_rule`. Near a border the three differ by a pixel or so, and a model was tuned with
            one of them.
    """
    if rule == "probability":
        return undo(1 / (1 + np.exp(-logits)), placement) - np.float32(0.5)
    if rule == "frame":
        rows, columns = placement.frame
        whole = [cv2.resize(layer, (columns, rows), interpolation=cv2.INTER_LINEAR) for layer in logits]
        logits = np.asarray(whole, np.float32)
    return undo(logits, placement)


def label_map(
    logits: npt.NDArray[np.float32],
    shown: npt.NDArray[np.bool_],
    targets: Sequence[Target],
    placement: Placement,
) -> npt.NDArray[np.uint8]:
    """One map of mask values from one layer of logits a target.

    A pixel gets the value of the most probable of the targets whose probability is at least 0.5 there. One target is
    enlarged at a time, to stay small in memory.

    Args:
        logits: (T, h, w) over the model's frame.
        shown: (T,), False for targets to be left out.
        targets: T rows of the target table; masks get the pieces and the shape that each can have.
        placement: how the source image lies in the frame.

    Returns:
        (H, W), 0 where no target is.
    """
    mask = np.zeros(placement.source, np.uint8)
    best: npt.NDArray[np.float32] | None = None
    for row, target in enumerate(targets):
        if not shown[row] or not (logits[row] >= 0).any():  # interpolation does not rise above its neighbours
            continue
        layer = keep_pieces(logits[row], target.pieces)
        full = undo((as_ellipse(layer) if target.ellipse else layer)[None], placement)[0]
        wins = full >= 0  # logit 0 is probability 0.5
        if best is None:
            best = full
        else:
            wins &= full > best
            np.copyto(best, full, where=wins)
        mask[wins] = target.value
    return mask
