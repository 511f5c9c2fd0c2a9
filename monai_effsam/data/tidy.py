# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What anatomy knows about a mask: how many pieces it can have, that it has no holes, that a skull is an ellipse."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["as_ellipse", "keep_pieces"]

_OUT, _IN = -4.0, 4.0  # logits of pixels that are taken out and filled in
_ALIKE = 0.85  # IoU below which a mask is no ellipse: cut off by the border, or wrong
_STEEP = 16.0  # logit lost from the centre of an ellipse to its outline


def keep_pieces(logits: npt.NDArray[np.float32], pieces: int) -> npt.NDArray[np.float32]:
    """Logits whose mask (>= 0) has at most so many connected pieces, the largest, and no holes.

    Works at the network's resolution, before the mask is enlarged, where it costs next to nothing.

    Args:
        logits: (h, w).
        pieces: how many the structure can have; 0 for any number, which leaves the logits as they are.

    Returns:
        (h, w); the input itself where there is nothing to change.
    """
    if pieces < 1:
        return logits
    mask = (logits >= 0).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count == 1:
        return logits
    largest = 1 + np.argsort(stats[1:, cv2.CC_STAT_AREA])[::-1][:pieces]
    kept = np.isin(labels, largest)
    outlines, _ = cv2.findContours(kept.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    whole = cv2.drawContours(np.zeros_like(mask), outlines, -1, (1,), cv2.FILLED).astype(bool)
    out = np.where(whole, np.where(mask > 0, logits, _IN), np.where(mask > 0, _OUT, logits))
    return np.asarray(out, np.float32)


def as_ellipse(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits whose mask (>= 0) is the ellipse of equal second moments, if the mask is nearly one already.

    The head circumference of a fetus is measured on an ellipse by definition, and labels are ellipses.

    Args:
        logits: (h, w).

    Returns:
        (h, w), smooth across the outline; the input itself where the mask is empty or no ellipse.
    """
    mask = logits >= 0
    moments = cv2.moments(mask.astype(np.uint8), binaryImage=True)
    if moments["m00"] < 16:
        return logits
    centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    spread = (
        np.array([[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]]) / moments["m00"]
    )
    if np.linalg.det(spread) < 1e-3:  # a line of pixels
        return logits
    rows, columns = np.indices(mask.shape)
    away = np.stack([columns - centre[0], rows - centre[1]], -1)
    radius = np.sqrt(np.einsum("hwi,ij,hwj->hw", away, np.linalg.inv(4 * spread), away))  # 1 on the outline
    ellipse = radius <= 1
    alike = (mask & ellipse).sum() / (mask | ellipse).sum()
    return np.asarray(_STEEP * (1 - radius), np.float32) if alike >= _ALIKE else logits
