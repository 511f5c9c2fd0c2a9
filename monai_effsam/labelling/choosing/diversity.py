# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""k-centre: the next image is the one farthest from all that are labelled.

"Active Learning for Convolutional Neural Networks: A Core-Set Approach", Sener and Savarese, arXiv 1708.00489, the
greedy variant, on pooled embeddings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["distances_to", "greedy_centres"]


def distances_to(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of each row to its nearest centre.

    Args:
        rows: (N, C) of length 1.
        centres: (M, C) of length 1; without any, the distance is that to the mean of the rows, negated, so that
            the most typical row comes first.

    Returns:
        (N,), 0..2.
    """
    if not len(centres):
        return np.asarray(-np.linalg.norm(rows - rows.mean(axis=0), axis=1), np.float32)
    cosine = (rows @ centres.T).max(axis=1)
    return np.asarray(np.sqrt(np.maximum(0, 2 - 2 * cosine)), np.float32)


def greedy_centres(rows: NDArray[np.float32], centres: NDArray[np.float32], count: int) -> list[int]:
    """Rows taken one by one, each the farthest from centres and those taken before.

    Args:
        rows: (N, C) of length 1.
        centres: (M, C), already there.
        count: how many.
    """
    taken: list[int] = []
    far = distances_to(rows, centres)
    for _ in range(min(count, len(rows))):
        best = int(np.argmax(far))
        taken.append(best)
        new = distances_to(rows, rows[best : best + 1])
        far = new if not len(centres) and len(taken) == 1 else np.minimum(far, new)
        far[taken] = -1
    return taken
