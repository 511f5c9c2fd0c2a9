# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""NRRD: read by ITK, masks as NIfTI on the same grid."""

import nibabel
import numpy as np
import pytest

from monai_effsam.data.io import read_image, write_mask
from monai_effsam.errors import DataError


def save(path, data: np.ndarray, *fields: str):
    """An NRRD file of `data`, raw; axes in Fortran order as the format has them."""
    kinds = {"i2": "int16", "u1": "uint8", "f4": "float", "f8": "double"}
    lines = ["NRRD0004", f"type: {kinds[data.dtype.str[1:]]}", f"dimension: {data.ndim}"]
    lines += [f"sizes: {' '.join(map(str, data.shape))}", "encoding: raw", "endian: little", *fields]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + data.tobytes(order="F"))
    return path


@pytest.mark.parametrize(
    ("space", "signs"),
    [("left-posterior-superior", (-1, -1, 1)), ("right-anterior-superior", (1, 1, 1)), ("LAS", (-1, 1, 1))],
)
@pytest.mark.parametrize("directions", [(1.0, 2.0, 3.0), (-1.0, 2.0, -3.0)], ids=["plain", "negative"])
def test_masks_lie_on_the_same_grid(tmp_path, space, signs, directions):
    data = np.random.default_rng(0).integers(0, 999, (5, 6, 7)).astype(np.int16)
    vectors = " ".join(
        f"({','.join(str(directions[i] if i == j else 0) for j in range(3))})" for i in range(3)
    )
    path = save(
        tmp_path / "a.nrrd", data, f"space: {space}", f"space directions: {vectors}", "space origin: (1,2,3)"
    )
    image = read_image(path)
    assert (image.kind, image.slices.shape, image.spacing_mm, image.slice_step_mm) == (
        "nrrd", (7, 6, 5), (2.0, 1.0), 3.0,
    )  # fmt: skip
    mask = np.random.default_rng(1).integers(0, 25, (7, 6, 5), dtype=np.uint8)
    written = nibabel.load(write_mask(image, mask, tmp_path / "out"))
    assert np.allclose(written.affine[:3, :3], np.diag(np.array(signs) * directions))
    assert np.allclose(written.affine[:3, 3], np.array(signs) * (1, 2, 3))
    assert (image.geometry.view.slices(np.asarray(written.dataobj)) == mask).all()


def test_voxels_arrive_where_they_are(tmp_path):
    data = np.zeros((5, 6, 2), np.int16)
    data[4, 0, 1] = 100  # towards left and anterior in LPS: right and up in the picture
    bright = read_image(save(tmp_path / "a.nrrd", data, "space: left-posterior-superior",
                             "space directions: (1,0,0) (0,1,0) (0,0,9)", "space origin: (0,0,0)")).slices  # fmt: skip
    assert np.argwhere(bright).tolist() == [[1, 0, 4]]


def test_two_dimensions_stay_two(tmp_path):
    image = read_image(save(tmp_path / "a.nrrd", np.arange(30, dtype=np.int16).reshape(5, 6)))
    assert (len(image), image.is_volume) == (1, False)
    assert nibabel.load(write_mask(image, np.zeros((1, 6, 5), np.uint8), tmp_path)).shape == (5, 6)


def test_rgb_is_read_in_colour(tmp_path):
    data = np.zeros((3, 5, 6, 7), np.uint8)
    data[1] = 77
    image = read_image(save(tmp_path / "a.nrrd", data, "kinds: RGB-color domain domain domain"))
    assert image.slices.shape == (7, 6, 5, 3)
    assert image.rgb(0)[0, 0].tolist() == [0, 77, 0]


def test_non_finite_voxels(tmp_path):
    data = np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 4, 5)
    data[0, 0, 0] = np.inf
    assert read_image(save(tmp_path / "a.nrrd", data)).notes == ("1 NaN or infinite values were replaced.",)
    with pytest.raises(DataError, match=r"a\.nrrd: voxel values are all NaN"):
        read_image(save(tmp_path / "a.nrrd", np.full((3, 4, 5), np.nan)))


def test_four_dimensions_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"has 4 dimensions \(2, 3, 4, 5\), expected 2 or 3"):
        read_image(save(tmp_path / "a.nrrd", np.zeros((2, 3, 4, 5), np.int16)))


@pytest.mark.parametrize("keep", [-20, 60])
def test_truncated_files_are_refused_in_one_line(tmp_path, keep):
    path = save(tmp_path / "a.nrrd", np.zeros((5, 6, 7), np.int16))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.nrrd: NRRD cannot be read: .*Copy or export") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
