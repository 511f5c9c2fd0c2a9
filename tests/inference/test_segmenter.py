# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""File to mask: values, presence, prompts, batches, sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from monai_effsam.data.io import Image, read_image
from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.specs import Prompts


class Grid:
    """A geometry that nobody writes."""

    suffix = ".png"

    def encode(self, mask):
        return mask.tobytes()


def image_of(slices: np.ndarray, **more) -> Image:
    values = dict(  # noqa: C408
        path=Path("x.png"), name="x", slices=slices, modality=None, spacing_mm=None, slice_step_mm=None,
        kind="raster", is_volume=False, geometry=Grid(),
    )  # fmt: skip
    return Image(**{**values, **more})


def blocks(*greys: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """One slice a grey; a block of it at rows 16-32, columns 32-48."""
    slices = np.zeros((len(greys), *size), np.uint8)
    for i, grey in enumerate(greys):
        slices[i, 16:32, 32:48] = grey
    return slices


def test_mask_holds_the_targets_value_where_it_is_probable(segmenter):
    result = segmenter.segment(image_of(blocks(255)), "endoscopy")
    assert result.mask.shape == (1, 64, 64)
    assert result.mask.dtype == np.uint8
    assert set(np.unique(result.mask)) == {0, 1}
    assert result.mask[0, 18:30, 34:46].all()
    assert not result.mask[0, :14].any()
    assert not result.mask[0, :, :30].any()


def test_a_target_reports_area_quality_and_presence(segmenter):
    result = segmenter.segment(image_of(blocks(255), spacing_mm=(0.5, 2.0)), "endoscopy")
    (polyp,) = result.found
    assert (polyp.name, polyp.value, polyp.found) == ("polyp", 1, True)
    assert polyp.area_px == np.count_nonzero(result.mask)
    assert polyp.area_mm2 == pytest.approx(polyp.area_px * 1.0)
    assert polyp.volume_ml is None
    assert polyp.presence == pytest.approx(0.9)
    assert polyp.quality == pytest.approx(0.8)


def test_the_most_probable_target_wins_a_pixel(segmenter):
    # grey 1: logits (1 - .3) * 40 = 28 and (1 - .5) * 80 = 40, so the second; grey .6: 12 and 8, so the first
    assert set(np.unique(segmenter.segment(image_of(blocks(255)), "ultrasound").mask)) == {0, 3, 4}
    dim = segmenter.segment(image_of(blocks(153)), "ultrasound").mask
    assert dim[0, 18:30, 34:46].min() == dim.max() == 3


def test_a_target_that_is_not_present_is_answered_nothing_here(segmenter, model):
    model.network.decode = _always_bright(model.network.decode)
    result = segmenter.segment(image_of(blocks(0)), "endoscopy")
    assert not result.mask.any()
    assert result.found[0].found is False
    assert result.found[0].area_px == 0
    assert result.found[0].presence == pytest.approx(0.1)


def _always_bright(decode):
    def bright(*args, **kwargs):
        decoded = decode(*args, **kwargs)
        decoded.mask_logits = torch.full_like(decoded.mask_logits, 5.0)
        return decoded

    return bright


def test_a_prompt_overrides_the_presence(segmenter):
    result = segmenter.segment(image_of(blocks(0)), "endoscopy", prompts=Prompts(box=(8, 8, 40, 24)))
    assert result.mask[0, 10:22, 10:38].all()
    assert not result.mask[0, 26:].any()
    assert result.found[0].found is True


def test_prompts_reach_the_network_in_model_pixels(segmenter):
    image = image_of(np.zeros((1, 128, 256), np.uint8))  # a quarter of it in the model's frame
    mask = segmenter.segment(image, "endoscopy", prompts=Prompts(((200.0, 100.0),), (1,))).mask[0]
    rows, columns = np.nonzero(mask)
    assert (rows.mean(), columns.mean()) == pytest.approx((100, 200), abs=4)
    outside = segmenter.segment(image, "endoscopy", prompts=Prompts(((200.0, 100.0),), (0,))).mask[0]
    assert not outside[100, 200]
    assert outside[20, 20]


def test_only_named_targets_are_outlined(segmenter):
    result = segmenter.segment(image_of(blocks(255)), "ultrasound", targets=["breast_lesion"])
    assert [t.name for t in result.found] == ["breast_lesion"]
    assert set(np.unique(result.mask)) == {0, 3}


def test_presence_of_a_volume_is_judged_a_slice(segmenter):
    image = image_of(blocks(255, 0, 255), is_volume=True, spacing_mm=(2.0, 5.0), slice_step_mm=10.0)
    result = segmenter.segment(image, "dermoscopy")
    assert [bool(one.any()) for one in result.mask] == [True, False, True]
    lesion = result.found[0]
    assert lesion.volume_ml == pytest.approx(lesion.area_px * 2 * 5 * 10 / 1000)
    assert lesion.area_mm2 is None


def test_a_volume_without_a_step_has_no_size(segmenter):
    image = image_of(blocks(255, 255), is_volume=True, spacing_mm=(2.0, 5.0))
    assert segmenter.segment(image, "dermoscopy").found[0].volume_ml is None


def test_slices_go_in_batches_and_progress_is_told(segmenter, model):
    told = []
    segmenter.segment(image_of(blocks(*[255] * 10)), "xray", progress=lambda *a: told.append(a))
    assert model.network.batches == [4, 4, 2]
    assert told == [(4, 10), (8, 10), (10, 10)]


def test_a_volume_equals_its_slices_one_by_one(segmenter):
    slices = np.random.default_rng(0).integers(0, 256, (5, 40, 52), np.uint8)
    whole = segmenter.segment(image_of(slices, is_volume=True), "mr").mask
    single = [segmenter.segment(image_of(slices[i : i + 1]), "mr").mask[0] for i in range(5)]
    np.testing.assert_array_equal(whole, np.stack(single))


def test_the_image_is_not_changed(segmenter):
    slices = blocks(255, 100)
    before = slices.copy()
    segmenter.segment(image_of(slices), "mr")
    np.testing.assert_array_equal(slices, before)


@pytest.mark.parametrize("size", [(1, 1), (3, 3000), (3000, 5), (64, 64), (17, 19)])
def test_the_mask_has_the_size_of_the_image(segmenter, size):
    result = segmenter.segment(image_of(np.full((1, *size, 3), 255, np.uint8)), "fundus")
    assert result.mask.shape == (1, *size)
    assert result.mask.all()


def test_encode_once_decode_often_equals_segment(segmenter, model):
    image = image_of(blocks(200))
    encoding = segmenter.encode(image, 0, "endoscopy")
    box = Prompts(box=(0, 0, 20, 20))
    assert len(encoding) == 1
    np.testing.assert_array_equal(segmenter.decode(encoding).mask, segmenter.segment(image, "endoscopy").mask)
    np.testing.assert_array_equal(
        segmenter.decode(encoding, prompts=box).mask, segmenter.segment(image, "endoscopy", prompts=box).mask
    )
    assert model.network.batches == [1, 1, 1]


@pytest.mark.parametrize(
    ("modality", "options", "error", "text"),
    [
        ("dermscopy", {}, UnknownNameError, "Did you mean 'dermoscopy'"),
        ("ultrasound", {"targets": ["polyp"]}, UsageError, "belongs to endoscopy.*breast_lesion, fetal_head"),
        (
            "ultrasound",
            {"prompts": Prompts(box=(0, 0, 5, 5))},
            UsageError,
            "one of breast_lesion, fetal_head",
        ),
        ("endoscopy", {"prompts": Prompts(box=(0, 0, 65, 5))}, UsageError, "X0 < X1 <= 64"),
        ("endoscopy", {"prompts": Prompts(((-1.0, 0.0),), (1,))}, UsageError, "0 <= X < 64"),
    ],
    ids=["modality", "target", "ambiguous", "box", "point"],
)
def test_a_wrong_request_is_refused(segmenter, modality, options, error, text):
    with pytest.raises(error, match=text):
        segmenter.segment(image_of(blocks(255)), modality, **options)


def test_a_prompt_wants_a_2d_image(segmenter):
    with pytest.raises(UsageError, match="Prompt a 2D image"):
        segmenter.segment(image_of(blocks(255, 255)), "endoscopy", prompts=Prompts(box=(0, 0, 5, 5)))
    with pytest.raises(UsageError, match="Prompt a 2D image"):
        segmenter.decode(
            segmenter.encode(image_of(blocks(255, 255)), [0, 1], "endoscopy"),
            prompts=Prompts(box=(0, 0, 5, 5)),
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:3", "gpu"])
def test_a_device_that_is_not_there_is_refused(model, device):
    with pytest.raises(UsageError, match=f"'{device}' cannot be used"):
        TorchRuntime(model, device)


def test_a_logit_that_is_no_number_is_no_target(segmenter, model):
    decode = model.network.decode

    def broken(*args, **kwargs):
        decoded = decode(*args, **kwargs)
        decoded.mask_logits = torch.full_like(decoded.mask_logits, float("nan"))
        return decoded

    model.network.decode = broken
    assert not segmenter.segment(image_of(blocks(255)), "endoscopy").mask.any()


def test_a_picture_from_a_file_comes_back_in_its_size(segmenter, picture):
    image = read_image(picture("block.png", size=(100, 80)))
    result = segmenter.segment(image, "endoscopy")
    assert result.mask.shape == (1, 100, 80)
    assert result.mask[0, 20, 30] == 1
    assert result.mask[0, 60, 60] == 0
