# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures into the model's frame and masks back, by hand and in register."""

import numpy as np
import pytest

from monai_effsam.data.placement import apply_spec, label_map, mask_scores, normalise, undo
from monai_effsam.errors import ShapeError
from monai_effsam.specs import ImageSpec, Placement
from monai_effsam.targets import Target

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def ramp(height, width):
    """A picture that grows to the right, and its slope [grey values a pixel]."""
    slope = 255 // width
    row = np.arange(width, dtype=np.uint8) * slope
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3))), slope


def test_normalisation_by_hand():
    rgb = np.array([[[0, 51, 255]]], np.uint8)
    spec = ImageSpec(16, mean=(0.5, 0.1, 0.0), std=(0.5, 0.1, 2.0))
    np.testing.assert_allclose(normalise(rgb, spec)[:, 0, 0], [-1.0, 1.0, 0.5], atol=1e-6)


def test_minmax_uses_the_pictures_own_range():
    rgb = np.array([[[10, 20, 30]], [[60, 110, 10]]], np.uint8)
    found = normalise(rgb, ImageSpec(16, intensity="minmax", **PLAIN))
    np.testing.assert_allclose(found[:, :, 0], [[0.0, 0.5], [0.1, 1.0], [0.2, 0.0]], atol=1e-6)


def test_minmax_of_a_flat_picture_is_finite():
    assert not normalise(np.full((2, 2, 3), 7, np.uint8), ImageSpec(16, intensity="minmax", **PLAIN)).any()


def test_picture_of_model_size_is_taken_as_it_is():
    rgb = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    image, placement = apply_spec(rgb, ImageSpec(32, **PLAIN))
    np.testing.assert_allclose(image, rgb.transpose(2, 0, 1) / 255, atol=1e-6)
    assert placement == Placement((32, 32), (32, 32), (32, 32))


def test_longest_pads_right_and_bottom_with_the_pad_value():
    image, placement = apply_spec(
        np.full((10, 40, 3), 255, np.uint8), ImageSpec(32, resize="longest", pad_value=-3, **PLAIN)
    )
    assert placement.content == (8, 32)
    assert (image[:, :8] == 1).all()
    assert (image[:, 8:] == -3).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3000, 5), (17, 64)])
@pytest.mark.parametrize("resize", ["stretch", "longest"])
def test_any_size_goes_there_and_back(size, resize):
    image, placement = apply_spec(np.zeros((*size, 3), np.uint8), ImageSpec(32, resize=resize))
    assert image.shape == (3, 32, 32)
    assert undo(np.ones((2, 8, 8), np.float32), placement).shape == (2, *size)


@pytest.mark.parametrize("resize", ["stretch", "longest"])
@pytest.mark.parametrize("size", [(96, 96), (100, 128), (77, 201), (201, 50)])
def test_a_ramp_comes_back_in_register(size, resize):
    picture, slope = ramp(*size)
    image, placement = apply_spec(picture, ImageSpec(64, resize=resize, **PLAIN))
    logits = (image[:1] * 255).reshape(1, 16, 4, 16, 4).mean((2, 4))  # a decoder of stride 4
    back = undo(logits.astype(np.float32), placement)[0]
    edge = 1 + 4 * size[1] // placement.content[1]
    inner = (slice(None, -edge) if resize == "longest" else slice(None), slice(edge, -edge))
    shift = (back[inner] - picture[inner][..., 0]) / slope  # [px]
    assert abs(shift.mean()) < 0.51 / slope  # a grey value is rounded to one half


def test_rules_of_masks_by_hand():
    logits = np.array([[[4.0, -1.0], [4.0, -1.0]]], np.float32)
    placement = ImageSpec(4, stride=2).place(
        (1, 8)
    )  # stretched: every fourth of the row, from 2.5 down to -0.5
    direct = mask_scores(logits, placement, "direct")[0, 0]
    np.testing.assert_allclose(direct, [4, 4, 3.375, 2.125, 0.875, -0.375, -1, -1], atol=1e-5)
    probable = mask_scores(logits, placement, "probability")[0, 0]
    ends = 1 / (1 + np.exp([-4.0, 1.0])) - 0.5
    np.testing.assert_allclose(probable[[0, 3, 7]], [ends[0], ends @ [0.625, 0.375], ends[1]], atol=1e-5)
    framed = mask_scores(logits, placement, "frame")[0, 0]  # 4, 2.75, 0.25, -1 in the frame
    np.testing.assert_allclose(framed, [4, 3.6875, 3.0625, 2.125, 0.875, -0.0625, -0.6875, -1], atol=1e-5)


def test_the_frame_is_cropped_before_masks_are_enlarged():
    logits = np.full((1, 2, 2), 5.0, np.float32)
    logits[:, 1] = -5.0
    placement = ImageSpec(4, "longest", stride=2).place((2, 8))  # the upper quarter of the frame
    assert placement.content == (1, 4)
    assert (mask_scores(logits, placement, "frame") == 5.0).all()


def test_most_probable_target_wins_and_hidden_ones_do_not_count():
    logits = np.array([[[2, 1, -1]], [[1, 3, -1]], [[9, 9, 9]]], np.float32)
    placement = Placement((1, 3), (1, 3), (1, 3))
    shown = np.array([True, True, False])
    targets = [Target(name, "ct", value, (0, 0, 0), "", "") for name, value in (("a", 5), ("b", 6), ("c", 7))]
    assert label_map(logits, shown, targets, placement).tolist() == [[5, 6, 0]]


def test_only_as_many_pieces_are_drawn_as_the_target_can_have():
    logits = np.array([[[1, -1, 2, 2, -1, 3]]], np.float32)
    placement = Placement((1, 6), (1, 6), (1, 6))
    one = Target("a", "ct", 5, (0, 0, 0), "", "", pieces=1)
    assert label_map(logits, np.array([True]), [one], placement).tolist() == [[0, 0, 5, 5, 0, 0]]


@pytest.mark.parametrize("picture", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_arrays_are_refused(picture):
    with pytest.raises(ShapeError, match=r"expected \(H, W, 3\) uint8"):
        apply_spec(picture, ImageSpec(16))
