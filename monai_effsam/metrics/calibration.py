# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_effsam.errors import ShapeError

__all__ = ["calibration_error"]


def calibration_error(probabilities: Sequence[float], truths: Sequence[bool], *, bins: int = 10) -> float:
    """Expected calibration error: mean over items of |mean probability - share of true| of their bin, 0..1.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3; bins of equal width.

    Args:
        probabilities: 0..1, at least one.
        truths: what was the case.
        bins: number of bins.

    Raises:
        ShapeError: no item, or not one truth a probability.
    """
    if len(probabilities) != len(truths) or not len(truths):
        raise ShapeError(
            f"calibration_error: {len(probabilities)} probabilities and {len(truths)} truths, expected one each."
        )
    p, y = np.asarray(probabilities, float), np.asarray(truths, float)
    place = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=p - y, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))
