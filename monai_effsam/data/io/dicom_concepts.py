# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a target is in the words of DICOM: category, type, place and colour of a segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

import monai_effsam
from monai_effsam.targets import Target

__all__ = ["Algorithm", "cielab", "segment_description"]

_ANATOMICAL = ("123037004", "Anatomical Structure")  # CID 7150
_ABNORMAL = ("49755003", "Morphologically Abnormal Structure")
_ABNORMAL_CODES = {
    "41329004",
    "95324001",
    "89164003",
    _ABNORMAL[0],
}  # lesions of the target table, and own targets
_REGIONS = {
    "skin_lesion": ("39937001", "Skin"),
    "breast_lesion": ("76752008", "Breast"),
    "retinal_vessels": ("5665001", "Retina"),
}
_MODIFIERS = {
    "lungs": ("51440002", "Right and left"),
    "hippocampus_anterior": ("255549009", "Anterior"),
    "hippocampus_posterior": ("255551008", "Posterior"),
}


@dataclass(frozen=True, slots=True)
class Algorithm:
    """Who outlined the segments.

    Args:
        name: of the model.
        version: of the model.
        prompted: whether a person's box or points said where.
    """

    name: str = "monai_effsam"
    version: str = monai_effsam.__version__
    prompted: bool = False


def segment_description(number: int, target: Target, algorithm: Algorithm) -> Any:
    """The item of the Segment Sequence for one target.

    A type of the target table that is one structure in two parts (anterior and posterior hippocampus) has a
    modifier; a lesion has the anatomic region that it lies in. The mask value stands in the description.

    Args:
        number: of the segment, from 1.
        target: row of the target table.
        algorithm: who outlined it.
    """
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    region = _REGIONS.get(target.name)
    item = SegmentDescription(
        segment_number=number,
        segment_label=target.name[:64],
        segmented_property_category=_concept(_ABNORMAL if target.code in _ABNORMAL_CODES else _ANATOMICAL),
        segmented_property_type=_concept((target.code, target.meaning)),
        algorithm_type="SEMIAUTOMATIC" if algorithm.prompted else "AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=algorithm.name[:64],
            family=codes.cid7162.ArtificialIntelligence,
            version=algorithm.version[:64],
        ),
        anatomic_regions=[_concept(region)] if region else None,
    )
    if target.name in _MODIFIERS:
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(_MODIFIERS[target.name])]
    item.SegmentDescription = f"{target.meaning}; value {target.value} of a monai_effsam mask"
    item.RecommendedDisplayCIELabValue = list(cielab(target.colour))
    return item


def cielab(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """8-bit sRGB -> L*, a*, b* as 16-bit numbers, DICOM PS3.3 C.10.7.1.1.

    White stays white (D65 is taken for the white of both), as the usual viewers count it back.
    """
    from highdicom.color import CIELabColor

    rgb = np.array([[colour]], np.float32) / 255
    light, red, yellow = (float(v) for v in cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0, 0])
    return CIELabColor(min(max(light, 0.0), 100.0), red, yellow).value


def _concept(pair: tuple[str, str]) -> Any:
    """A SNOMED CT concept from (code, meaning)."""
    from highdicom.sr import CodedConcept

    return CodedConcept(pair[0], "SCT", pair[1][:64])
