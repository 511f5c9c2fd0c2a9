# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How each family places pictures and prompts: the worked example of their papers' own code, and their pixels."""

from dataclasses import replace

import numpy as np
import pytest

from monai_effsam.checkpoints.families import FAMILIES, published_as
from monai_effsam.data.placement import apply_spec
from monai_effsam.specs import ImageSpec

SIZE = (531, 622)
BOX = (95, 255, 190, 350)
SAM_BOX = (156.3987, 419.7175, 312.7974, 576.0829)

WORKED = {  # resized picture, box in the prompt frame
    "sam": ((874, 1024), SAM_BOX),
    "mobile_sam": ((874, 1024), SAM_BOX),
    "tiny_sam": ((874, 1024), SAM_BOX),
    "medsam": ((1024, 1024), (156.3987, 491.7514, 312.7974, 674.9529)),
    "lite_medsam": ((219, 256), (39, 104, 78, 144)),
}


def placed_box(spec):
    placement = spec.place(SIZE)
    return placement.content, sum(placement.to_model([BOX[:2], BOX[2:]]), ())


def test_every_family_has_its_worked_example():
    assert WORKED.keys() == FAMILIES.keys()


@pytest.mark.parametrize("name", WORKED)
def test_the_worked_example(name):
    content, box = placed_box(FAMILIES[name].spec)
    assert content == WORKED[name][0]
    assert box == pytest.approx(WORKED[name][1], abs=5e-5)


def test_a_prompt_frame_larger_than_the_picture_as_efficient_vit_sam_has_it():
    content, box = placed_box(replace(FAMILIES["sam"].spec, size=512, prompt_size=1024))
    assert content == (437, 512)
    assert box == pytest.approx(SAM_BOX, abs=5e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_specs_go_there_and_back(name):
    spec = FAMILIES[name].spec
    assert ImageSpec.from_json(spec.to_json()) == spec
    assert spec.grid == 64


def small(name, size):
    return replace(FAMILIES[name].spec, size=size)


@pytest.fixture(scope="module")
def rgb():
    """Grey values 20..219, so that min-max shows."""
    return np.random.default_rng(0).integers(20, 220, (40, 64, 3), np.uint8)


def test_sam_pads_with_its_mean_colour(rgb):
    image, _ = apply_spec(rgb, small("sam", 64))
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(image[:, :40].transpose(1, 2, 0), (rgb - mean) / std, atol=1e-5)
    assert (image[:, 40:] == 0).all()


def test_lite_medsam_scales_before_it_pads(rgb):
    image, _ = apply_spec(rgb, small("lite_medsam", 64))
    low, high = float(rgb.min()), float(rgb.max())
    np.testing.assert_allclose(image[:, :40].transpose(1, 2, 0), (rgb - low) / (high - low), atol=1e-6)
    assert (image[:, 40:] == 0).all()


def test_medsam_stretches_and_uses_the_whole_range(rgb):
    image, _ = apply_spec(rgb, small("medsam", 64))
    assert image.shape == (3, 64, 64)
    assert (image.min(), image.max()) == (0, 1)


def test_checksums_of_published_files_are_known():
    sam = "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
    assert published_as(sam) == published_as("0" * 64, "01ec64d29a2fca3f0661936605ae66f8") == "sam"
    assert published_as("0" * 64) is None
