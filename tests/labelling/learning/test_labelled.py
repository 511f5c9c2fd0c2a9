# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Labels as viewers send them: by name, cropped, on other grids, with structures that nobody knows."""

import cv2
import nibabel
import numpy as np
import pytest

pytest.importorskip("filelock")

from monai_effsam.data.io import read_image
from monai_effsam.errors import DataError
from monai_effsam.labelling.learning.grid import label_on_grid
from monai_effsam.labelling.learning.labelled import (
    LabelledItem,
    label_values,
    labelled_items,
    read_items,
    split_items,
)
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import TARGETS

AXIAL = np.diag([-1.0, -1.0, 2.0, 1.0])
OBLIQUE = np.array([[0.0, 0.6, 1.6, -30], [0.8, 0.0, 0.0, 12], [0.0, -0.8, 1.2, 5], [0, 0, 0, 1]])


def volume(path, affine, shape=(20, 24, 8)):
    """A CT-like file and a label in its order with a lopsided object."""
    values = np.random.RandomState(0).randint(-900, 400, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    label = np.zeros(shape, np.uint8)
    label[4:9, 10:20, 2:6] = 1
    label[5, 11, 3] = 0
    return label


@pytest.mark.parametrize(
    "affine", [AXIAL, OBLIQUE, np.diag([1.0, 1.0, -3.0, 1.0])], ids=["axial", "oblique", "down"]
)
@pytest.mark.parametrize("way", ["same", "cropped", "flipped", "turned"])
def test_label_of_another_grid_lies_where_it_was_drawn(tmp_path, affine, way):
    label = volume(tmp_path / "ct.nii.gz", affine)
    image = read_image(tmp_path / "ct.nii.gz", modality="ct")
    expected = image.geometry.view.slices(label)
    sent, place = label, affine.copy()
    if way == "cropped":
        sent = label[4:9, 10:20, 2:6]
        place[:3, 3] = (affine @ [4, 10, 2, 1])[:3]
    elif way == "flipped":
        sent = label[::-1]
        place = affine @ np.array([[-1.0, 0, 0, 19], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    elif way == "turned":
        sent = label.transpose(2, 0, 1)
        place = affine[:, [2, 0, 1, 3]]
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(sent), place), tmp_path / "label.nii.gz")
    assert np.array_equal(label_on_grid(tmp_path / "label.nii.gz", image), expected)


def test_label_of_a_finer_grid_is_taken_by_the_nearest_voxel(tmp_path):
    label = volume(tmp_path / "ct.nii.gz", AXIAL)
    image = read_image(tmp_path / "ct.nii.gz", modality="ct")
    fine = label.repeat(3, 0).repeat(3, 1)
    place = AXIAL @ np.diag([1 / 3, 1 / 3, 1, 1])
    place[:3, 3] = (AXIAL @ [-1 / 3, -1 / 3, 0, 1])[:3]
    nibabel.save(nibabel.Nifti1Image(fine, place), tmp_path / "label.nii.gz")
    assert np.array_equal(label_on_grid(tmp_path / "label.nii.gz", image), image.geometry.view.slices(label))


def test_label_beside_the_image_is_refused(tmp_path):
    label = volume(tmp_path / "ct.nii.gz", AXIAL)
    place = AXIAL.copy()
    place[0, 3] += 500
    nibabel.save(nibabel.Nifti1Image(label, place), tmp_path / "label.nii.gz")
    image = read_image(tmp_path / "ct.nii.gz", modality="ct")
    with pytest.raises(DataError, match="beside its image"):
        label_on_grid(tmp_path / "label.nii.gz", image)


@pytest.fixture
def picture(tmp_path):
    """A picture 30 wide and 20 high, and a label on it."""
    cv2.imwrite(str(tmp_path / "p.png"), np.random.RandomState(0).randint(0, 255, (20, 30, 3), np.uint8))
    label = np.zeros((20, 30), np.uint8)
    label[3:9, 12:27] = 2
    return tmp_path / "p.png", label


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
@pytest.mark.parametrize("ending", [".nii.gz", ".png", ".nrrd"])
def test_label_of_a_picture(picture, tmp_path, ending, affine):
    path, label = picture
    sent = tmp_path / f"label{ending}"
    if ending == ".png":
        cv2.imwrite(str(sent), label)
    elif ending == ".nrrd":
        header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 30 20 1\nspace: left-posterior-superior\n"
        header += "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\n\n"
        sent.write_bytes(header.encode() + label.tobytes())
    else:
        nibabel.save(nibabel.Nifti1Image(label.T[..., None], affine), sent)
    assert np.array_equal(label_on_grid(sent, read_image(path)), label[None])


def test_cropped_label_of_a_picture(picture, tmp_path):
    path, label = picture
    place = np.diag([-1.0, -1.0, 1.0, 1.0])
    place[:2, 3] = (-12, -3)
    nibabel.save(nibabel.Nifti1Image(label[3:9, 12:27].T[..., None].copy(), place), tmp_path / "label.nii.gz")
    assert np.array_equal(label_on_grid(tmp_path / "label.nii.gz", read_image(path)), label[None])


def test_what_clients_tell_of_values():
    slicer = {"label_info": [{"name": "Spleen", "idx": 3}, {"name": "liver", "idx": 7}]}
    assert label_values(slicer) == {3: "Spleen", 7: "liver"}
    assert label_values({"label_info": [{"name": "a"}, {"name": "b"}]}) == {1: "a", 2: "b"}
    assert label_values({"params": {"label_names": {"polyp": 1}}}) == {1: "polyp"}
    assert label_values({}) == label_values({"label_info": "x"}) == {}


def item(tmp_path, name, values, names):
    """An ultrasound picture whose label holds `values` in columns."""
    cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 40, 3), 90, np.uint8))
    label = np.zeros((40, 40), np.uint8)
    for n, value in enumerate(values):
        label[:, 5 * n : 5 * n + 5] = value
    cv2.imwrite(str(tmp_path / f"{name}_label.png"), label)
    return LabelledItem(name, tmp_path / f"{name}.png", tmp_path / f"{name}_label.png", names)


SPECS = {"ultrasound": ImageSpec(64), "endoscopy": ImageSpec(64)}


def test_values_count_by_their_names(tmp_path):
    one = item(tmp_path, "a", [1, 2, 7], {1: "Fetal Head", 2: "breast-lesion", 7: "needle"})
    [got] = read_items([one], SPECS, TARGETS, "ultrasound")
    assert got.label[0, [0, 5, 10, 20]].tolist() == [2, 1, 0, 0]  # places among the targets of the modality
    assert got.known == (True, True)
    assert got.modality == got.stratum == "ultrasound"


def test_a_label_speaks_of_what_any_label_names(tmp_path):
    items = [item(tmp_path, "a", [1], {1: "breast_lesion"}), item(tmp_path, "b", [1], {1: "breast_lesion"})]
    assert [s.known for s in read_items(items, SPECS, TARGETS, "ultrasound")] == [(True, False)] * 2
    items.append(item(tmp_path, "c", [1], {1: "fetal_head"}))
    assert [s.known for s in read_items(items, SPECS, TARGETS, "ultrasound")] == [(True, True)] * 3


def test_without_names_the_target_table_counts(tmp_path):
    [got] = read_items([item(tmp_path, "a", [3, 4], {})], SPECS, TARGETS, "ultrasound")
    assert got.label[0, [0, 5]].tolist() == [1, 2]


def test_a_label_that_cannot_be_used_is_passed_over(tmp_path, caplog):
    good = item(tmp_path, "a", [1], {1: "polyp"})
    bad = item(tmp_path, "b", [1], {1: "needle"})
    gone = LabelledItem("c", tmp_path / "c.png", tmp_path / "none.png", {})
    got = read_items([good, bad, gone], SPECS, TARGETS, "endoscopy")
    assert [s.case for s in got] == ["a"]
    assert "b: passed over" in caplog.text
    assert "expected one of polyp" in caplog.text


def test_rows_of_a_datastore_become_items(tmp_path):
    rows = [
        {
            "image": "/x/b.png",
            "label": "/x/labels/final/b.nii.gz",
            "meta": {"label": {"name": "b.nii.gz", "label_info": [{"name": "polyp", "idx": 1}]}},
        },
        {"image": "/x/a.png", "label": "/x/labels/final/a.nii.gz"},
    ]
    items = labelled_items(rows)
    assert [(i.image_id, dict(i.names)) for i in items] == [("a", {}), ("b", {1: "polyp"})]


def test_the_split_is_stable_and_keeps_patients_whole(tmp_path):
    names = [f"p{n}_frame{k}" for n in range(40) for k in range(3)]
    every = [LabelledItem(name, tmp_path, tmp_path, {}) for name in names]
    train, held = split_items(every, 0.2)
    assert 10 < len(held) < 45
    patients = [{i.image_id.split("_")[0] for i in part} for part in (train, held)]
    assert not patients[0] & patients[1]
    fewer = split_items(every[:60], 0.2)[1]
    assert {i.image_id for i in fewer} == {i.image_id for i in held} & {i.image_id for i in every[:60]}


def test_series_of_an_archive_are_told_apart_by_patient_and_not_by_their_numbers():
    def row(number, **image):
        uid = f"1.2.826.0.1.3680043.8.498.{number}"
        label = {"name": f"{uid}.nrrd", "image_id": uid}
        return {"image": f"/x/{uid}", "label": f"/x/{uid}.nrrd", "meta": {"label": label, "image": image}}

    rows = [row(n, PatientID=f"p{n // 2}", StudyInstanceUID=f"1.{n}") for n in range(10)]
    train, held = split_items(labelled_items(rows), 0.2)
    assert train
    assert held
    assert not {i.group for i in train} & {i.group for i in held}
    unnamed = labelled_items([row(n, StudyInstanceUID=f"1.{n}") for n in range(10)])
    assert len({i.group for i in unnamed}) == 10
