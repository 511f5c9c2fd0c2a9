# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Targets in the words of DICOM: colours, categories, regions."""

import cv2
import numpy as np
import pytest

from monai_effsam.data.io import Algorithm
from monai_effsam.data.io.dicom_concepts import cielab, segment_description
from monai_effsam.targets import TARGETS, Target, find_targets, own_target

pytest.importorskip("highdicom")


def has_check_digit(code: str) -> bool:
    """Whether the last digit is that of Verhoeff's scheme, which every SNOMED CT identifier ends with."""
    steps = np.array([1, 5, 7, 6, 2, 8, 3, 0, 9, 4])
    check, turned = 0, np.arange(10)
    for digit in map(int, reversed(code)):  # multiply in the dihedral group of the pentagon
        one, other = check, int(turned[digit])
        turns = (one + other if one < 5 else one - other) % 5
        check = turns + 5 * ((one < 5) != (other < 5))
        turned = steps[turned]
    return check == 0


def test_the_check_digit_of_a_code_is_understood():
    """Liver, hippocampus and kidney of DICOM PS3.16, and one of them with a wrong digit."""
    assert [has_check_digit(code) for code in ("10200004", "5366008", "64033007", "10200014")] == [
        True
    ] * 3 + [False]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.modality}-{target.name}")
def test_codes_are_snomed_identifiers(target):
    one = segment_description(1, target, Algorithm())
    codes = [item.value for item in one.iterall() if item.keyword == "CodeValue" and len(item.value) > 6]
    assert target.code in codes
    assert all(map(has_check_digit, codes))


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
