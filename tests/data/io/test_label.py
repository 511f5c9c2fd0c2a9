# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Masks that people drew, on the grid of their image."""

import cv2
import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow

from monai_effsam.data.io import read_image, read_label, write_mask
from monai_effsam.errors import DataError


@pytest.fixture
def picture(tmp_path):
    """A read picture of 6 x 8 pixels."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((6, 8, 3), np.uint8))
    return read_image(path)


def values(shape=(6, 8)):
    return (np.arange(np.prod(shape)) % 7).reshape(shape).astype(np.uint8)


def save(path, content):
    if path.suffix == ".png":
        cv2.imwrite(str(path), content)
    else:
        nibabel.save(nibabel.Nifti1Image(content, np.eye(4)), path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_are_left_as_they_are(picture, tmp_path, dtype):
    found = read_label(save(tmp_path / "m.png", values().astype(dtype)), picture)
    assert found.dtype == np.uint8
    assert (found == values()[None]).all()


def test_grey_saved_as_rgb_is_grey(picture, tmp_path):
    path = save(tmp_path / "m.png", np.repeat(values()[..., None], 3, 2))
    assert (read_label(path, picture)[0] == values()).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_mask_of_a_turned_photo_lies_in_the_stored_orientation(tmp_path, orientation):
    stored = np.zeros((8, 8, 3), np.uint8)
    stored[1:3, 4:7] = 255
    exif = Pillow.Exif()
    exif[274] = orientation
    Pillow.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    upright = (image.slices[..., 0] > 128).astype(np.uint8)
    assert (read_label(save(tmp_path / "m.png", stored[..., 0] // 255), image) == upright).all()
    assert (read_label(write_mask(image, upright, tmp_path / "out"), image) == upright).all()


def test_mask_that_fits_only_upright_is_taken_so(tmp_path):
    exif = Pillow.Exif()
    exif[274] = 6
    Pillow.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "a.png", exif=exif)
    path = save(tmp_path / "m.png", values((8, 6)))
    assert (read_label(path, read_image(tmp_path / "a.png"))[0] == values((8, 6))).all()


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1, 2, 3, 1]), np.diag([3, 1, -1, 1])])
def test_what_was_written_for_a_volume_is_read_again(tmp_path, affine):
    volume = np.random.RandomState(0).rand(5, 6, 7).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "v.nii.gz")
    image = read_image(tmp_path / "v.nii.gz")
    mask = values((len(image), *image.size))
    assert (read_label(write_mask(image, mask, tmp_path / "out"), image) == mask).all()


def test_what_was_written_for_pages_is_read_again(tmp_path):
    pages = [Pillow.fromarray(np.full((6, 8), 40 * i, np.uint8)) for i in range(3)]
    pages[0].save(tmp_path / "p.tif", save_all=True, append_images=pages[1:])
    image = read_image(tmp_path / "p.tif")
    mask = values((3, 6, 8))
    assert (read_label(write_mask(image, mask, tmp_path / "out"), image) == mask).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "m.png",
            values((6, 9)),
            r"mask has 1x6x9 pixels, its image a\.png has 1x6x8\. Draw it on the same image",
        ),
        ("m.png", values().astype(np.uint16) * 100, r"not whole numbers 0\.\.255. Export it as a label map"),
        (
            "m.png",
            np.random.RandomState(0).randint(0, 9, (6, 8, 3)),
            r"mask is in colour.*Export a label map",
        ),
        ("m.nii.gz", values((2, 2, 2, 2)), "Draw it on the same image"),
    ],
)
def test_other_masks_are_refused(picture, tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_label(save(tmp_path / name, content), picture)


@pytest.mark.parametrize(
    ("dtype", "bad"), [(np.float32, 0.5), (np.float32, np.nan), (np.int16, -1), (np.int16, 300)]
)
def test_values_that_are_no_labels_are_refused(tmp_path, dtype, bad):
    save(tmp_path / "v.nii", np.random.RandomState(0).rand(4, 5, 6).astype(np.float32))
    mask = np.zeros((4, 5, 6), dtype)
    mask[1, 1, 1] = bad
    with pytest.raises(DataError, match="not whole numbers"):
        read_label(save(tmp_path / "m.nii", mask), read_image(tmp_path / "v.nii"))


@pytest.mark.parametrize("name", ["m.png", "m.nii.gz", "missing.png", "missing.nii"])
def test_unreadable_files_are_refused(picture, tmp_path, name):
    if name.startswith("m."):
        (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"mask cannot be read.*Export it again"):
        read_label(tmp_path / name, picture)
