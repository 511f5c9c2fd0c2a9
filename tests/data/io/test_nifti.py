# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""NIfTI: geometry in equals geometry out, bit for bit; intensity; refusals."""

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_effsam.data.io import Source, read_image, write_mask
from monai_effsam.data.io.grid import slice_axis, slice_view, spacing_of
from monai_effsam.errors import DataError, UnknownNameError

CODES = [
    "".join(axes)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for axes in itertools.product(*order)
]


def affine_for(codes: str, spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    """(4, 4) of an array whose axes point towards `codes`."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, code in enumerate(codes):
        row = next(i for i, pair in enumerate(("RL", "AP", "SI")) if code in pair)
        affine[row, axis] = spacing[axis] * (1 if code in "RAS" else -1)
    affine[:3, 3] = (-12.5, 3.25, 40.0)
    return affine


def save(path: Path, data: np.ndarray, affine=None, kind=nibabel.Nifti1Image) -> Path:
    image = kind(data, np.eye(4) if affine is None else affine)
    nibabel.save(image, path)
    return path


def random_mask(image) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 25, (len(image), *image.size), dtype=np.uint8)


def written(path: Path, out: Path) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image, np.ndarray]:
    """(input, mask file, the mask's slices as given) after reading and writing."""
    image = read_image(path)
    mask = random_mask(image)
    result = nibabel.load(write_mask(image, mask, out))
    back = image.geometry.view.slices(np.asarray(result.dataobj).reshape((*result.shape, 1, 1)[:3]))
    assert (back == mask).all()
    return nibabel.load(path), result, mask


def same_geometry(one, other) -> bool:
    keys = ("pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units", "dim")
    keys += ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    return all(np.array_equal(one.header[key], other.header[key]) for key in keys) and np.array_equal(
        one.affine, other.affine
    )


@pytest.mark.parametrize("codes", CODES)
def test_axial_slices_show_right_on_the_left_and_anterior_above(tmp_path, codes):
    """One voxel at the patient's right, one anterior: where they are in the picture does not depend on storage."""
    world = np.zeros((5, 6, 3), np.uint8)  # R, A, S
    world[4, 0, 1], world[0, 5, 1] = 100, 200  # rightmost and hindmost; leftmost and foremost
    spacing = {"R": 1.0, "L": 1.0, "A": 1.0, "P": 1.0, "S": 4.0, "I": 4.0}
    ornt = nibabel.orientations.axcodes2ornt(codes)
    stored = nibabel.orientations.apply_orientation(
        world, nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), ornt)
    )
    path = save(tmp_path / "a.nii", stored, affine_for(codes, [spacing[c] for c in codes]))
    image = read_image(path)
    assert image.slices.shape == (3, 6, 5)
    bright = image.slices[1]
    assert bright[5, 0] > 0
    assert bright[0, 4] > bright[5, 0]
    assert np.count_nonzero(bright) == 2
    assert (image.spacing_mm, image.slice_step_mm) == ((1.0, 1.0), 4.0)


@pytest.mark.parametrize(
    ("thick", "shape", "foremost"),
    [("A", (5, 4, 3), "S"), ("R", (6, 4, 3), "S")],
    ids=["coronal", "sagittal"],
)
def test_coronal_and_sagittal_slices_show_superior_above(tmp_path, thick, shape, foremost):
    data = np.zeros((5, 6, 4), np.uint8)
    data[:, :, 3] = 100
    spacing = [4.0 if code == thick else 1.0 for code in "RAS"]
    image = read_image(save(tmp_path / "a.nii", data, affine_for("RAS", spacing)))
    assert len(image) == {"A": 6, "R": 5}[thick]
    assert (image.slices[:, 0] > 0).all()
    assert not image.slices[:, 1:].any()


@given(
    codes=st.sampled_from(CODES),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    spacing=st.tuples(*[st.floats(0.0625, 9)] * 3),
    angle=st.floats(-0.7, 0.7),
    kind=st.sampled_from(["u1", "i2", ">i2", "u2", "i4", "f4", "f8"]),
    codes_of_forms=st.sampled_from([(1, 0), (0, 1), (1, 2), (2, 1), (0, 0)]),
    disagree=st.booleans(),
    packed=st.booleans(),
    version=st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]),
)
@settings(max_examples=80)
def test_geometry_in_is_geometry_out(
    tmp_path_factory, codes, shape, spacing, angle, kind, codes_of_forms, disagree, packed, version
):
    folder = tmp_path_factory.mktemp("geometry")
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ affine_for(codes, spacing)
    data = np.random.default_rng(0).integers(0, 99, shape).astype(kind)
    image = version(data, affine)
    image.set_sform(affine, codes_of_forms[0])
    image.set_qform(affine if not disagree else affine_for("LPS", spacing), codes_of_forms[1])
    path = folder / ("a.nii.gz" if packed else "a.nii")
    nibabel.save(image, path)
    before, after, _ = written(path, folder)
    assert after.shape == shape
    assert after.get_data_dtype() == np.uint8
    assert type(after) is version
    assert same_geometry(before, after)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (1, 1), (4, 5, 1, 1), (4, 5, 6, 1), (3, 900, 1)])
def test_shape_in_is_shape_out(tmp_path, shape):
    data = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    before, after, mask = written(save(tmp_path / "a.nii.gz", data), tmp_path)
    assert before.shape == after.shape == shape
    assert mask.size == np.prod(shape)


def test_rgb_voxels_are_read_in_colour(tmp_path):
    voxels = np.zeros((3, 4, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    voxels["G"] = 77
    _, after, _ = written(save(tmp_path / "a.nii", voxels), tmp_path)
    assert after.shape == (3, 4, 2)
    assert read_image(tmp_path / "a.nii").slices.shape[3] == 3
    assert read_image(tmp_path / "a.nii").rgb(0)[0, 0].tolist() == [0, 77, 0]


def test_stored_scaling_is_applied_and_not_copied(tmp_path):
    image = nibabel.Nifti1Image(np.linspace(0, 1, 60).reshape(3, 4, 5), np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii.gz")
    _, after, _ = written(tmp_path / "a.nii.gz", tmp_path)
    assert (after.dataobj.slope, after.dataobj.inter) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("shape", "spacing", "stated", "axis"),
    [
        ((9, 9, 9), (1, 1, 1), None, 2),
        ((9, 9, 9), (1, 1.21, 1), None, 1),
        ((9, 9, 9), (1, 1.19, 1), None, 2),
        ((9, 9, 9), (1, 1, 1), 0, 0),
        ((3, 9, 9), (1, 1, 1), None, 0),
        ((4, 9, 9), (1, 1, 1), None, 2),
        ((35, 51, 26), (1, 1, 1), None, 2),
        ((3, 9, 9), (1, 1, 5), None, 2),
    ],
)
def test_slices_lie_across_the_acquisition_axis(shape, spacing, stated, axis):
    assert slice_axis(shape, spacing, stated) == axis


def test_degenerate_affine_still_gives_a_view():
    for affine in (np.zeros((4, 4)), np.diag([1.0, 0, 0, 1]), np.ones((4, 4))):
        view = slice_view((3, 4, 5), affine)
        data = np.arange(60).reshape(3, 4, 5)
        assert (view.undo(view.slices(data)) == data).all()
    assert spacing_of(np.diag([3.0, 4, 5, 1])) == (3.0, 4.0, 5.0)


@pytest.mark.parametrize(
    ("window", "low", "high"),
    [("soft_tissue", -160, 240), ("lung", -1350, 150), ("bone", -500, 1300), ("brain", 0, 80)],
)
def test_ct_goes_through_its_window(tmp_path, window, low, high):
    values = np.array([-2000, low, (low + high) / 2, high, 3000], np.int16).reshape(5, 1, 1)
    path = save(tmp_path / "a.nii", values)
    shown = read_image(path, ct_window=window).geometry.view.undo(read_image(path, ct_window=window).slices)
    assert shown.ravel().tolist() == [0, 0, 128, 255, 255]


def test_modality_decides_before_the_values_do(tmp_path):
    values = np.array([-40, 40, 140], np.int16).reshape(3, 1, 1)
    path = save(tmp_path / "a.nii", values)
    assert sorted(read_image(path, modality="ct").slices.ravel()) == [77, 128, 191]
    assert sorted(read_image(path).slices.ravel()) == [0, 113, 255]
    save(path, values - np.int16(1000))
    assert sorted(read_image(path, modality="mr").slices.ravel()) == [0, 113, 255]
    assert sorted(read_image(path).slices.ravel()) == [0, 0, 0]


def test_an_mr_with_negative_values_is_not_taken_for_a_ct(tmp_path):
    values = np.linspace(-600, 30000, 60, dtype=np.float32).reshape(5, 4, 3)
    assert 120 < read_image(save(tmp_path / "a.nii", values)).slices.mean() < 135


@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_long_extensions_of_the_header_are_passed_over(tmp_path, version, ending):
    image = version(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([1, 2, 3, 1]))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"history " * 5000))
    nibabel.save(image, tmp_path / f"a{ending}")
    assert same_geometry(*written(tmp_path / f"a{ending}", tmp_path / "out")[:2])


@pytest.mark.parametrize("length", [12, 347, 351])
def test_a_header_cut_short_is_refused(tmp_path, length):
    version = nibabel.Nifti2Image if length < 348 else nibabel.Nifti1Image
    path = save(tmp_path / "a.nii", np.zeros((5, 4, 3), np.int16), kind=version)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"a\.nii: NIfTI cannot be read: "):
        read_image(path)


def test_extensions_that_could_exhaust_the_memory_are_refused(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((5, 4, 3), np.int16))
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(2**30).tobytes()
    path.write_bytes(content)
    with pytest.raises(DataError, match="header is 1073741824 bytes long, expected at most 67108864"):
        read_image(path)


def test_other_values_are_scaled_over_the_volume(tmp_path):
    values = np.arange(2000, dtype=np.float32).reshape(10, 20, 10)
    values[0, 0, 0], values[-1, -1, -1] = -400, 1e9
    shown = read_image(save(tmp_path / "a.nii", values)).slices
    assert len(np.unique(shown)) == 256
    assert 126 < shown.mean() < 129


def test_unknown_window_is_refused_with_the_list(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((3, 3, 3), np.int16))
    with pytest.raises(UnknownNameError, match=r"CT window 'lungs' is unknown.*Did you mean 'lung'"):
        read_image(path, ct_window="lungs")


def test_non_finite_voxels_are_replaced_and_told(tmp_path):
    values = np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 4, 5)
    values[0, 0, 0] = np.nan
    image = read_image(save(tmp_path / "a.nii", values))
    assert image.notes == ("1 NaN or infinite values were replaced.",)
    save(tmp_path / "b.nii", np.full((3, 4, 5), np.nan, np.float32))
    with pytest.raises(DataError, match=r"b\.nii: voxel values are all NaN"):
        read_image(tmp_path / "b.nii")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (np.zeros((4, 5, 6, 7), np.int16), r"has 4 dimensions \(4, 5, 6, 7\), expected 2 or 3"),
        (np.zeros((4, 5, 6, 1, 3), np.int16), "has 5 dimensions"),
        (np.zeros((4,), np.int16), "has 1 dimensions"),
        (np.zeros((4, 5, 6), np.complex64), "complex64.*expected real numbers or RGB"),
    ],
    ids=["time", "vector", "line", "complex"],
)
def test_what_is_no_volume_is_refused(tmp_path, data, found):
    with pytest.raises(DataError, match=found):
        read_image(save(tmp_path / "a.nii.gz", data))


def test_truncated_files_are_refused(tmp_path):
    data = np.random.default_rng(0).integers(0, 999, (20, 20, 20)).astype(np.int16)
    for name in ("a.nii", "a.nii.gz"):
        path = save(tmp_path / name, data)
        content = path.read_bytes()
        for keep in (len(content) // 2, len(content) - 30):
            path.write_bytes(content[:keep])
            with pytest.raises(
                DataError, match=r"a\.nii.*Export it as one|NIfTI cannot be read: .*Copy or export"
            ) as caught:
                read_image(path)
            assert "\n" not in str(caught.value)


def test_a_header_that_promises_too_much_is_refused_before_reading(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((4, 4, 4), np.int16))
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    path.write_bytes(content)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(content)))
    for name in ("a.nii", "b.nii.gz"):
        with pytest.raises(DataError, match="expected at most"):
            read_image(tmp_path / name)


def test_content_decides_and_not_the_ending(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    other = path.rename(tmp_path / "b.png")
    image = read_image(Source((other,), None, "b"))
    assert (image.kind, len(image)) == ("nifti", 5)
    assert write_mask(image, random_mask(image), tmp_path).name == "b_mask.nii.gz"


@pytest.mark.data
@pytest.mark.parametrize("folder", ["volume_ct", "volume_mr", "hippocampus"])
def test_real_volumes_keep_their_geometry(shared, tmp_path, folder):
    path = next(iter(sorted((shared / "data" / folder / "images").glob("*.nii.gz"))))
    before, after, mask = written(path, tmp_path)
    assert same_geometry(before, after)
    assert mask.shape[0] == before.shape[2]
