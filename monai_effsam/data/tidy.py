# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What anatomy knows about a mask: how many pieces it can have, and that it has no holes."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["keep_pieces"]

_OUT, _IN = -4.0, 4.0  # logits of pixels that are taken out and filled in


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
