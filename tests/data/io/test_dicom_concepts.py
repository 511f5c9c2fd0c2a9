# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Targets in the words of DICOM: colours, categories, regions."""

import cv2
import numpy as np
import pytest

from monai_effsam.data.io import Algorithm
from monai_effsam.data.io.dicom_concepts import cielab, segment_description
from monai_effsam.targets import TARGETS, Target, find_targets, own_target

pytest.importorskip("highdicom")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.modality}-{target.name}")
def test_colours_are_those_of_the_table(target):
    stored = np.array(segment_description(1, target, Algorithm()).RecommendedDisplayCIELabValue, np.float64)
    lab = stored / 0xFFFF * [100, 255, 255] - [0, 128, 128]
    back = cv2.cvtColor(lab.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_LAB2RGB)[0, 0] * 255
    assert np.abs(back - target.colour).max() < 1.5


def test_white_and_red_in_cielab():
    """L*a*b* of sRGB red is (53.24, 80.09, 67.20) for the white point D65, as in every table of colours."""
    assert np.allclose(cielab((255, 255, 255)), [65535, 32896, 32896], atol=20)
    expected = [53.24 / 100 * 65535, (80.09 + 128) / 255 * 65535, (67.20 + 128) / 255 * 65535]
    assert np.allclose(cielab((255, 0, 0)), expected, atol=30)


def test_lesions_are_abnormal_and_have_a_region():
    def told(target: Target) -> tuple:
        one = segment_description(1, target, Algorithm())
        kind = one.SegmentedPropertyTypeCodeSequence[0]
        return (
            one.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning.split()[0],
            [region.CodeMeaning for region in one.get("AnatomicRegionSequence", ())],
            [m.CodeMeaning for m in kind.get("SegmentedPropertyTypeModifierCodeSequence", ())],
        )

    assert told(*find_targets(["skin_lesion"], "dermoscopy")) == ("Morphologically", ["Skin"], [])
    assert told(*find_targets(["polyp"], "endoscopy")) == ("Morphologically", [], [])
    assert told(own_target("my_wart", "dermoscopy")) == ("Morphologically", [], [])
    assert told(*find_targets(["retinal_vessels"], "fundus")) == ("Anatomical", ["Retina"], [])
    assert told(*find_targets(["hippocampus_posterior"], "mr")) == ("Anatomical", [], ["Posterior"])
