# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How good, how sure and how costly: overlap, statistics, calibration, complexity. Arrays in, numbers out."""

from monai_effsam.metrics.calibration import calibration_error
from monai_effsam.metrics.complexity import count_macs, count_parameters
from monai_effsam.metrics.overlap import dice_score, iou_score
from monai_effsam.metrics.statistics import Spread, bootstrap_interval, paired_p_value, spread_of

__all__ = [
    "Spread",
    "bootstrap_interval",
    "calibration_error",
    "count_macs",
    "count_parameters",
    "dice_score",
    "iou_score",
    "paired_p_value",
    "spread_of",
]
