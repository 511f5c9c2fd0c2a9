# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""DICOM series of a folder: grouped, sorted along the normal, placed in space."""

import shutil

import nibabel
import numpy as np
import pytest

from monai_effsam.data.io import find_inputs, read_image, write_mask
from monai_effsam.errors import DataError

AXIAL = [1, 0, 0, 0, 1, 0]


@pytest.fixture
def slices(make_dicom):
    """A function that writes slices at the given heights; each slice's pixels are its height."""

    def write(folder, heights, orientation=AXIAL, uid="1.2.3", shape=(4, 5), **attributes):
        normal = np.cross(orientation[:3], orientation[3:])
        number = attributes.pop("SeriesNumber", 1)
        for index, height in enumerate(heights):
            make_dicom(
                f"{folder}/{uid}_{index}.dcm", np.full(shape, height, np.int16), attributes.get("modality", "MR"),
                SeriesInstanceUID=uid, ImageOrientationPatient=orientation, PixelSpacing=[2.0, 0.5],
                ImagePositionPatient=[float(v) for v in np.array([10, 20, 0]) + normal * height],
                InstanceNumber=index + 1, SeriesNumber=number, WindowCenter=50, WindowWidth=101,
                **{k: v for k, v in attributes.items() if k != "modality"},
            )  # fmt: skip

    return write


def test_slices_are_sorted_along_their_normal(slices, tmp_path):
    slices("study", [30, 0, 60, 90])
    (source,) = find_inputs([tmp_path / "study"])
    assert (source.name, source.kind, len(source.paths)) == ("study", "dicom", 4)
    image = read_image(source)
    assert (np.diff(image.slices[:, 0, 0].astype(int)) > 0).all()
    assert (image.slice_step_mm, image.spacing_mm, image.is_volume) == (30.0, (2.0, 0.5), True)
    assert (image.path, image.modality, image.notes) == (tmp_path / "study", "mr", ())


def test_mask_of_a_series_lies_where_the_slices_lie(slices, tmp_path):
    slices("study", [60, 0, 30])
    image = read_image(tmp_path / "study")
    mask = np.random.default_rng(0).integers(0, 25, (3, 4, 5), dtype=np.uint8)
    written = nibabel.load(write_mask(image, mask, tmp_path / "out"))
    assert (np.asarray(written.dataobj) == mask.transpose(2, 1, 0)).all()
    assert written.affine.tolist() == [[-0.5, 0, 0, -10], [0, -2, 0, -20], [0, 0, 30, 0], [0, 0, 0, 1]]


def test_oblique_slices_keep_their_direction(slices, tmp_path):
    angle = 0.4
    directions = [np.cos(angle), 0, np.sin(angle), 0, 1, 0]
    slices("study", [0, 10, 20], orientation=[round(v, 8) for v in directions])
    image = read_image(tmp_path / "study")
    affine = nibabel.load(write_mask(image, np.zeros((3, 4, 5), np.uint8), tmp_path)).affine
    assert np.allclose(affine[:3, 0], np.array([-np.cos(angle), 0, np.sin(angle)]) * 0.5)
    assert np.isclose(np.linalg.norm(affine[:3, 2]), 10)
    assert np.isclose(image.slice_step_mm, 10)


def test_each_series_of_a_folder_is_an_input(slices, tmp_path):
    slices("study", [0, 10, 20], uid="1.1", SeriesNumber=7)
    slices("study", [0, 10], uid="1.2", SeriesNumber=9)
    slices("study", [5], uid="1.3")
    found = find_inputs([tmp_path / "study"])
    assert [(s.name, len(s.paths)) for s in found] == [("study_7", 3), ("study_9", 2), ("1.3_0", 1)]
    with pytest.raises(DataError, match="folder holds 3 images"):
        read_image(tmp_path / "study")


def test_planes_of_one_series_are_apart(slices, tmp_path):
    slices("study", [0, 10, 20])
    slices("study/localizer", [0], uid="1.2.3", orientation=[1, 0, 0, 0, 0, -1])
    shutil.move(tmp_path / "study/localizer/1.2.3_0.dcm", tmp_path / "study/zz.dcm")
    assert [len(s.paths) for s in find_inputs([tmp_path / "study"])] == [3, 1]


def test_repeated_positions_are_stacks_of_their_own(slices, tmp_path):
    slices("study", [0, 0, 10, 10, 20, 20])
    first, second = find_inputs([tmp_path / "study"])
    assert [p.name for p in first.paths] == ["1.2.3_0.dcm", "1.2.3_2.dcm", "1.2.3_4.dcm"]
    assert [p.name for p in second.paths] == ["1.2.3_1.dcm", "1.2.3_3.dcm", "1.2.3_5.dcm"]
    assert first.name != second.name


def test_missing_slices_are_told(slices, tmp_path):
    slices("study", [0, 10, 20, 40, 50])
    image = read_image(tmp_path / "study")
    assert image.slice_step_mm == 10.0
    assert "Slices are not evenly spaced (10 mm, up to 20 mm): some seem to be missing" in image.notes[0]


def test_pictures_without_a_place_stay_single(make_dicom, tmp_path):
    for index in range(3):
        make_dicom(f"study/{index}.dcm", np.zeros((2, 2), np.uint8), "DX", SeriesInstanceUID="1.2")
    assert [s.name for s in find_inputs([tmp_path / "study"])] == ["0", "1", "2"]


def test_other_objects_of_a_folder_stay_inputs_that_say_what_they_are(slices, make_dicom, tmp_path):
    slices("study", [0, 10])
    make_dicom("study/zz.dcm", np.zeros((2, 2), np.uint8), "SEG", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    stack, other = find_inputs([tmp_path / "study"])
    assert len(stack.paths) == 2
    with pytest.raises(DataError, match=r"zz\.dcm: DICOM object is 'Segmentation Storage'"):
        read_image(other)


def test_a_common_window_holds_and_differing_ones_give_way(slices, tmp_path):
    slices("same", [0, 50, 200])
    assert read_image(tmp_path / "same").slices[:, 0, 0].tolist() == [1, 129, 255]
    slices("other", [0, 50, 200])
    first = sorted((tmp_path / "other").iterdir())[0]
    import pydicom

    data = pydicom.dcmread(first)
    data.WindowCenter = 7
    data.save_as(first)
    assert read_image(tmp_path / "other").slices[:, 0, 0].tolist() == [0, 64, 255]


def test_ct_series_goes_through_the_preset(slices, tmp_path):
    slices("study", [0, 40, 300], modality="CT", RescaleSlope=1, RescaleIntercept=0)
    image = read_image(tmp_path / "study", ct_window="brain")
    assert image.slices[:, 0, 0].tolist() == [0, 128, 255]


def test_a_slice_that_does_not_fit_is_named(slices, tmp_path):
    slices("study", [0, 10, 20])
    (source,) = find_inputs([tmp_path / "study"])
    slices("odd", [10], shape=(6, 6))
    shutil.copy(tmp_path / "odd/1.2.3_0.dcm", source.paths[1])
    with pytest.raises(DataError, match=r"1\.2\.3_1\.dcm: slice of shape \(6, 6\) does not fit its series"):
        read_image(source)
