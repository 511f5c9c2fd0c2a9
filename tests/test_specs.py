# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Image specs: impossible ones refused, there and back as JSON, and where prompts land."""

import json

import pytest

from monai_effsam.errors import SpecError
from monai_effsam.specs import ImageSpec, Placement

FOREIGN = ImageSpec(
    512,
    "longest",
    "minmax",
    interpolation="spline",
    prompt_size=1024,
    prompt_rule="truncated",
    mask_rule="frame",
)


@pytest.mark.parametrize("spec", [ImageSpec(64), FOREIGN], ids=["plain", "foreign"])
def test_json_there_and_back(spec):
    assert ImageSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_description_without_the_newer_fields_means_what_it_meant():
    old = {"size": 64, "resize": "longest", "intensity": "uint8", "pad_value": 0.0, "stride": 16}
    spec = ImageSpec.from_json(old)
    assert (spec.interpolation, spec.prompt_size, spec.prompt_rule, spec.mask_rule) == (
        "auto",
        None,
        "exact",
        "direct",
    )
    assert spec.place((32, 16)) == Placement((32, 16), (64, 32), (64, 64))


def test_unknown_keys_are_refused():
    with pytest.raises(SpecError, match=r"unknown keys \['colour'\]"):
        ImageSpec.from_json({"size": 64, "colour": 1})


WRONG = {
    "size": ({"size": 40}, "size is 40, expected a positive multiple of stride 16"),
    "resize": ({"resize": "crop"}, "resize is 'crop', expected one of stretch, longest"),
    "intensity": ({"intensity": "z"}, "intensity is 'z', expected one of uint8, minmax, tissue"),
    "interpolation": (
        {"interpolation": "x"},
        "interpolation is 'x', expected one of auto, area, pillow, spline",
    ),
    "prompt rule": ({"prompt_rule": "x"}, "prompt_rule is 'x', expected one of exact, truncated"),
    "mask rule": ({"mask_rule": "x"}, "mask_rule is 'x', expected one of direct, frame, probability"),
    "prompt size": ({"prompt_size": 0}, "prompt_size is 0, expected a positive number or None"),
    "std": ({"std": (1.0, 0.0, 1.0)}, "expected three positive numbers"),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=WRONG)
def test_impossible_specs_are_refused(values, message):
    with pytest.raises(SpecError, match=message):
        ImageSpec(**{"size": 64, **values})


def test_prompts_follow_the_picture_by_default():
    placement = ImageSpec(64, resize="longest").place((30, 40))
    assert placement.content == (48, 64)
    assert placement.to_model([(10, 10), (40, 30)]) == [(16.0, 16.0), (64.0, 48.0)]
    assert placement.to_source([(16.0, 16.0)]) == [(10.0, 10.0)]


def test_a_prompt_frame_of_its_own_has_its_own_rounding():
    placement = ImageSpec(64, resize="longest", prompt_size=128).place((33, 100))
    assert placement.content == (21, 64)
    assert placement.to_model([(100, 33)]) == [pytest.approx((128, 42))]  # not twice 21.12


def test_truncated_prompts_scale_both_sides_alike_and_lose_their_fractions():
    placement = ImageSpec(256, resize="longest", stride=4, prompt_rule="truncated").place((531, 622))
    assert placement.to_model([(95, 255)]) == [(39.0, 104.0)]  # 39.10, 104.95
