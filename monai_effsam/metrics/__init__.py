# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How good, how sure and how costly: overlap, statistics, calibration, complexity. Arrays in, numbers out."""

from monai_effsam.metrics.average_precision import (
    FoundObjects,
    MaskPrecision,
    average_precision,
    match_masks,
)
from monai_effsam.metrics.calibration import ReliabilityBin, calibration_error, reliability
from monai_effsam.metrics.classification import ClassScores, class_scores
from monai_effsam.metrics.complexity import count_macs, count_parameters
from monai_effsam.metrics.overlap import dice_score, iou_score, precision_score, recall_score
from monai_effsam.metrics.statistics import (
    PairedDifference,
    Spread,
    bootstrap_interval,
    holm,
    paired_difference,
    paired_p_value,
    spread_of,
    student_interval,
)
from monai_effsam.metrics.surface import SurfaceScore, surface_score

__all__ = [
    "ClassScores",
    "FoundObjects",
    "MaskPrecision",
    "PairedDifference",
    "ReliabilityBin",
    "Spread",
    "SurfaceScore",
    "average_precision",
    "bootstrap_interval",
    "calibration_error",
    "class_scores",
    "count_macs",
    "count_parameters",
    "dice_score",
    "holm",
    "iou_score",
    "match_masks",
    "paired_difference",
    "paired_p_value",
    "precision_score",
    "recall_score",
    "reliability",
    "spread_of",
    "student_interval",
    "surface_score",
]
