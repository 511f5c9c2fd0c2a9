# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A user's own folder: layouts, groups by name or table, and a split that stays put."""

import cv2
import numpy as np
import pytest

from monai_effsam.data.pairs import group_of, read_pairs, split_groups
from monai_effsam.data.slices import load_slices
from monai_effsam.errors import DataError, UnknownNameError, UsageError
from monai_effsam.specs import ImageSpec


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def read(folder, **options):
    return read_pairs(folder, "endoscopy", {255: "polyp"}, **options)


def test_folders_of_images_and_masks(tmp_path):
    touch(
        tmp_path / "own", "images/a.jpg", "images/p2/b.png", "masks/a.png", "masks/p2/b_mask.png", "notes.txt"
    )
    first, second = read(tmp_path / "own")
    assert (first.image.name, first.mask.name, first.group) == ("a.jpg", "a.png", "a")
    assert (second.image.name, second.mask.name, second.group) == ("b.png", "b_mask.png", "p2/b")
    assert (first.modality, first.values, first.set_name) == ("endoscopy", {255: "polyp"}, "own")


def test_one_folder_with_masks_beside_and_what_segment_wrote(tmp_path):
    touch(
        tmp_path,
        "a.png",
        "a_mask.png",
        "a_overlay.png",
        "b.nii.gz",
        "b_mask.nii.gz",
        "results.jsonl",
        ".c.png",
    )
    assert [(c.image.name, c.mask.name) for c in read(tmp_path)] == [
        ("a.png", "a_mask.png"),
        ("b.nii.gz", "b_mask.nii.gz"),
    ]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("patient3_frame01_s05", "patient3"),
        ("patient3_frame15_s05", "patient3"),
        ("clip-7 slice 12", "clip-7"),
        ("p1_Frame_003", "p1"),
        ("abd_001_100", "abd_001"),
        ("12-004", "12"),
        ("img_0012", "img_0012"),
        ("ISIC_0000001", "ISIC_0000001"),
        ("cju0qkwl35piu0993l0dewei2", "cju0qkwl35piu0993l0dewei2"),
        ("0042", "0042"),
        ("010_2HC", "010_2HC"),
        ("study/p1_07", "study/p1"),
        ("p1/img_07", "p1/img_07"),
        ("frame_07", "frame_07"),
    ],
)
def test_group_is_the_name_without_its_counters(name, group):
    assert group_of(name) == group


def test_frames_of_a_patient_are_on_one_side(tmp_path):
    names = [f"p{p}_frame{f}" for p in range(20) for f in range(5)]
    cases = read(touch(tmp_path, *(f"{n}{end}.png" for n in names for end in ("", "_mask"))))
    sides = {group: {c.split for c in cases if c.group == group} for group in {c.group for c in cases}}
    assert len(sides) == 20
    assert {len(s) for s in sides.values()} == {1}
    assert {c.split for c in cases} == {"train", "val"}


def test_table_of_groups_goes_before_names(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/b.png")
    (tmp_path / "groups.csv").write_text("image,group\nimages/a.png,anna\nb.png,bert\n", encoding="utf-8-sig")
    assert [c.group for c in read(tmp_path)] == ["anna", "bert"]


def test_split_is_seeded_and_about_its_share():
    names = [f"g{i}" for i in range(400)]
    first, second, other = split_groups(names), split_groups(names), split_groups(names, seed=1)
    assert first == second != other
    assert 0.14 < list(first.values()).count("val") / 400 < 0.26
    assert set(split_groups(names, val_share=0).values()) == {"train"}


def test_more_data_leaves_the_others_where_they_are():
    few, many = split_groups([f"g{i}" for i in range(50)]), split_groups([f"g{i}" for i in range(99)])
    assert {g: many[g] for g in few} == few


@pytest.mark.parametrize("seed", range(20))
def test_two_groups_are_on_two_sides_and_one_alone_trains(seed):
    assert sorted(split_groups(["a", "b"], seed=seed).values()) == ["train", "val"]
    assert split_groups(["a"], seed=seed) == {"a": "train"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"holds no images, expected images/ and masks/, or NAME\.png"),
        (
            ["a.png", "b.png", "a_mask.png"],
            r"1 of 2 images have no mask \(b\.png\).*an empty mask where nothing",
        ),
        (["images/a.png"], r"1 of 1 images have no mask"),
        (["a.png", "a_mask.png", "b_mask.png"], r"1 of 2 masks have no image \(b_mask\.png\)"),
        (["a.png", "a.jpg", "a_mask.png"], "same name as a.jpg.*Rename one"),
        (["images/a.png", "masks/a.png", "masks/a_mask.png"], "same name as a.png"),
    ],
)
def test_folders_that_are_no_pairs_are_refused(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        read(touch(tmp_path, *names))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,group\nb.png,p\n", r"no group for 1 of 1 images \(a\.png\)"),
        ("file\na.png\n", "lacks image or group"),
    ],
)
def test_a_table_of_groups_that_does_not_fit_is_refused(tmp_path, text, message):
    touch(tmp_path, "a.png", "a_mask.png")
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("values", [{}, {0: "polyp"}, {256: "polyp"}])
def test_values_that_are_no_labels_are_refused(tmp_path, values):
    with pytest.raises(UsageError, match="--target polyp=255"):
        read_pairs(touch(tmp_path, "a.png", "a_mask.png"), "endoscopy", values)


def test_unknown_modality_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'endoscopy'"):
        read_pairs(tmp_path, "endoscop", {1: "polyp"})


def test_pairs_become_labelled_slices(tmp_path):
    random = np.random.RandomState(0)
    for name in ("p1_frame1", "p2_frame1"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), random.randint(0, 256, (20, 30, 3)).astype(np.uint8))
        cv2.imwrite(str(tmp_path / f"{name}_mask.png"), np.eye(20, 30, dtype=np.uint8) * 255)
    slices = load_slices(read(tmp_path), {"endoscopy": ImageSpec(32)})
    assert [(s.case, int(s.label.sum()), s.known) for s in slices] == [
        ("p1", 20, (True,)),
        ("p2", 20, (True,)),
    ]
