# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Views: the same whenever they are made, label and picture in register, keys that tell them apart."""

import numpy as np
import pytest
from monai.utils import set_determinism

from monai_effsam.data.views import make_view, view_key, view_ranges
from monai_effsam.targets import MODALITIES


@pytest.fixture
def picture():
    """A bright block on a dark ground, and the block as label."""
    label = np.zeros((60, 90), np.uint8)
    label[20:40, 30:70] = 2
    return np.where(label[..., None] > 0, 200, 40).astype(np.uint8).repeat(3, 2), label


def test_view_zero_is_the_picture_itself(picture):
    view = make_view(*picture, "endoscopy", 0, seed=5)
    assert view.image is picture[0]
    assert view.label is picture[1]
    assert view.key == view_key(picture[0], "endoscopy", 0, seed=9)


def test_a_view_is_a_pure_function(picture):
    set_determinism(1)
    first = make_view(*picture, "ultrasound", 3, seed=5)
    set_determinism(2)
    make_view(*picture, "ultrasound", 4, seed=5)
    again = make_view(picture[0].copy(), picture[1].copy(), "ultrasound", 3, seed=5)
    set_determinism(None)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label, again.label)
    assert first.key == again.key == view_key(picture[0], "ultrasound", 3, seed=5)


def test_keys_and_pixels_follow_picture_modality_number_and_seed(picture):
    changed = picture[0].copy()
    changed[0, 0] = 41
    views = [
        make_view(*picture, "ultrasound", 1),
        make_view(*picture, "ultrasound", 2),
        make_view(*picture, "ultrasound", 1, seed=1),
        make_view(*picture, "xray", 1),
        make_view(changed, picture[1], "ultrasound", 1),
    ]
    assert len({v.key for v in views}) == len({v.image.tobytes() for v in views}) == 5


@pytest.mark.parametrize("modality", [*MODALITIES, ""])
def test_label_and_picture_stay_in_register(picture, modality):
    for number in range(1, 6):
        view = make_view(*picture, modality, number)
        assert view.image.shape == (60, 90, 3)
        assert view.image.dtype == view.label.dtype == np.uint8
        assert set(np.unique(view.label)) <= {0, 2}
        bright = view.image.mean(2) > (view.image.max() + view.image.mean(2)[view.label == 0].mean()) / 2
        both = (bright & (view.label > 0)).sum()
        assert 2 * both / (bright.sum() + (view.label > 0).sum()) > 0.93


def test_nothing_is_mirrored_where_sides_have_names():
    assert [m for m in (*MODALITIES, "") if not view_ranges(m).flip_x] == ["ct", "mr", ""]
