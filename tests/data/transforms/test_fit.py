# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The dictionary form of the way of an image: the same arithmetic as the segmenter's, and geometry that comes back."""

from types import SimpleNamespace

import cv2
import nibabel
import numpy as np
import pytest
import torch
from monai.data import decollate_batch

from monai_effsam.data.io import read_image, write_mask
from monai_effsam.data.placement import apply_spec
from monai_effsam.data.transforms import (
    FitToSpecd,
    ReadLabeld,
    StoredGridd,
    UndoSpecd,
    collate_one,
    first_choice,
)
from monai_effsam.errors import DataError, UnknownNameError, UsageError
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import TARGETS, targets_of

SPEC = ImageSpec(32, "longest")
SPECS = {"mr": SPEC, "ct": ImageSpec(64)}
MR = [t.name for t in targets_of("mr")]


@pytest.fixture
def picture(tmp_path):
    """A PNG of 24 x 40."""
    pixels = np.random.RandomState(0).randint(0, 255, (24, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    return tmp_path / "a.png"


@pytest.fixture
def volume(tmp_path):
    """A NIfTI volume whose axes and direction differ from reading order."""
    values = np.random.RandomState(1).randint(0, 900, (20, 30, 5)).astype(np.int16)
    affine = np.array([[-1.0, 0, 0, 5], [0, 1.5, 0, -7], [0, 0, 4, 2], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "v.nii.gz")
    return tmp_path / "v.nii.gz"


def logits_of(target, mask):
    """Logits that say exactly where a (h, w) mask of the frame is, for one target."""
    out = torch.full((len(MR), *mask.shape), -9.0)
    out[MR.index(target)][mask] = 9.0
    return out


def test_a_picture_becomes_what_the_spec_makes_of_it(picture):
    item = FitToSpecd("image", SPECS, "mr")({"image": str(picture)})
    expected, placement = apply_spec(read_image(picture).rgb(0), SPEC)
    np.testing.assert_array_equal(item["image"].numpy(), expected)
    assert item["image_fitted"].placement == placement
    assert item["modality"] == item["image_fitted"].modality == "mr"


def test_a_volume_becomes_a_stack_of_slices(volume):
    item = FitToSpecd("image", SPECS, "mr")({"image": volume})
    image = read_image(volume, modality="mr")
    assert item["image"].shape == (3, len(image), 32, 32)
    np.testing.assert_array_equal(item["image"][:, 2].numpy(), apply_spec(image.rgb(2), SPEC)[0])


def test_an_item_knows_its_modality_better_than_the_default(picture):
    item = FitToSpecd("image", SPECS, "mr")({"image": str(picture), "modality": ["ct", "mr"]})
    assert item["modality"] == "ct"
    assert item["image"].shape == (3, 64, 64)


def test_the_modality_must_be_told_and_have_a_spec(picture):
    with pytest.raises(UsageError, match="modality is unknown, expected one of mr, ct"):
        FitToSpecd("image", SPECS)({"image": str(picture)})
    with pytest.raises(UnknownNameError, match="modality 'xray' is unknown, expected one of ct, mr"):
        FitToSpecd("image", SPECS, "xray")({"image": str(picture)})


@pytest.mark.parametrize("numbering", ["value", "row"])
def test_logits_become_the_number_of_their_target(picture, numbering):
    liver = next(i for i, t in enumerate(TARGETS) if (t.modality, t.name) == ("mr", "liver"))
    expected = 17 if numbering == "value" else 1 + liver
    item = FitToSpecd("image", SPECS, "mr")({"image": str(picture)})
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:10] = True  # the content is the upper 19 of 32 rows
    item["pred"] = logits_of("liver", mask)
    pred = UndoSpecd("pred", numbering=numbering)(item)["pred"]
    assert pred.shape == (1, 24, 40)
    assert pred.dtype == torch.uint8
    assert (pred[0, :12] == expected).all()
    assert (pred[0, 14:] == 0).all()


def test_without_a_fit_there_is_no_way_back():
    with pytest.raises(
        UsageError, match=r"'image_fitted' is NoneType, expected Fitted\. Put FitToSpecd first\."
    ):
        UndoSpecd("pred")({"pred": torch.zeros(17, 8, 8)})


@pytest.mark.parametrize("numbering", ["value", "row"])
def test_a_label_meets_the_prediction_in_order_and_number(volume, tmp_path, numbering):
    item = FitToSpecd("image", SPECS, "mr")({"image": volume})
    image = item["image_fitted"].image
    drawn = np.zeros((len(image), *image.size), np.uint8)
    drawn[1, 2:6, 3:9] = 17
    path = write_mask(image, drawn, tmp_path / "labels")
    item["label"] = str(path)
    label = ReadLabeld("label", numbering=numbering)(item)["label"]
    assert label.shape == (1, *drawn.shape)
    number = (
        17 if numbering == "value" else 1 + TARGETS.index(next(t for t in targets_of("mr") if t.value == 17))
    )
    np.testing.assert_array_equal(label[0].numpy(), np.where(drawn, number, 0))


def test_a_set_names_its_own_mask_values(picture, tmp_path):
    cv2.imwrite(str(tmp_path / "m.png"), np.tile(np.arange(40, dtype=np.uint8) % 3, (24, 1)))
    item = FitToSpecd("image", SPECS, "mr")({"image": str(picture)})
    item |= {"label": str(tmp_path / "m.png"), "values": {1: "spleen", "2": "liver"}}
    done = ReadLabeld("label")(item)
    assert done["label"][0, 0, :3].tolist() == [0, 12, 17]
    item["values"] = {1: "spleen"}
    with pytest.raises(DataError, match=r"holds the value 2, expected 0 or one of \[1\]"):
        ReadLabeld("label")(item)


def test_a_map_goes_to_the_axes_of_its_volume(volume):
    item = FitToSpecd("image", SPECS, "mr")({"image": volume})
    shape = item["image_fitted"].image.slices.shape
    item["pred"] = torch.arange(int(np.prod(shape)), dtype=torch.uint8).reshape(1, *shape)
    done = StoredGridd("pred")(item)
    written = nibabel.Nifti1Image.from_filename(volume)
    assert done["pred"].shape == written.shape
    np.testing.assert_allclose(done["image_meta_dict"]["affine"], written.affine)
    assert done["pred_mask"].shape == shape
    view = item["image_fitted"].image.geometry.view
    np.testing.assert_array_equal(view.slices(done["pred"].numpy()), done["pred_mask"])


def test_a_map_of_a_picture_lies_as_monai_reads_pictures(picture):
    item = FitToSpecd("image", SPECS, "mr")({"image": str(picture)})
    item["pred"] = torch.arange(24 * 40, dtype=torch.uint8).reshape(1, 24, 40)
    done = StoredGridd("pred")(item)
    np.testing.assert_array_equal(done["pred"].numpy(), item["pred"][0].numpy().T)
    assert done["image_meta_dict"]["affine"] is None


def test_objects_survive_a_batch_of_one():
    thing = SimpleNamespace(value=3)
    batch = collate_one([{"image": torch.zeros(3, 2, 2), "thing": thing, "modality": "ct"}])
    assert batch["image"].shape == (1, 3, 2, 2)
    (item,) = decollate_batch(batch)
    assert item["thing"] is thing
    assert item["modality"] == "ct"
    with pytest.raises(UsageError, match="2 items in a batch, expected 1"):
        collate_one([{}, {}])


@pytest.mark.parametrize(
    ("value", "expected"), [("ct", "ct"), (["mr", "ct"], "mr"), (None, None), ("", None), ([], None)]
)
def test_of_choices_the_first_is_taken(value, expected):
    assert first_choice(value) == expected
