# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures to distil on: read once, again when there is no room, bad ones passed over, whole groups held out."""

import cv2
import numpy as np
import pytest

from monai_effsam.data.pictures import Pictures, labelled_files, unlabelled_files
from monai_effsam.data.sets import Case
from monai_effsam.errors import DataError, UsageError


def write(path, size=(40, 60), seed=0, mask=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 2 if mask else 256, (*size, 1 if mask else 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        write(tmp_path / "in" / f"p{i // 2}_{i % 2}.png", seed=i)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    return tmp_path / "in"


def test_a_picture_that_cannot_be_read_is_passed_over(folder):
    pictures = Pictures(unlabelled_files(folder, 64))
    assert len(pictures) == 6
    ((path, reason),) = pictures.failures
    assert path.name == "broken.png"
    assert reason
    assert not pictures[0].label.any()
    assert pictures[0].known == ()


def test_nothing_readable_is_one_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 pictures can be read"):
        Pictures(unlabelled_files(tmp_path, 64))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="folder holds no images"):
        unlabelled_files(tmp_path, 64)


def test_what_has_no_room_is_read_again(folder):
    kept, again = (Pictures(unlabelled_files(folder, 64), memory=memory) for memory in (2**30, 0))
    assert again[2] is not again[2]
    assert kept[2] is kept[2]
    for a, b in zip(kept, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(again[-1].image, kept[5].image)


def test_large_pictures_are_shrunk_to_little_more_than_the_size(folder):
    assert Pictures(unlabelled_files(folder, 32))[0].image.shape == (27, 40, 3)
    assert Pictures(unlabelled_files(folder, 512))[0].image.shape == (40, 60, 3)


def test_groups_are_held_out_whole(folder):
    pictures = Pictures(unlabelled_files(folder, 64))
    train, watched = pictures.held_out(0.4, seed=1)
    assert sorted(train + watched) == list(range(6))
    assert watched
    assert {pictures.groups[i] for i in train}.isdisjoint(pictures.groups[i] for i in watched)
    assert pictures.held_out(0.0)[1] == []


def test_masks_beside_pictures_are_no_pictures(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "a_mask.png", mask=True)
    assert [f.path.name for f in unlabelled_files(tmp_path, 64)] == ["a.png"]
    write(tmp_path / "pairs" / "images" / "b.png")
    write(tmp_path / "pairs" / "masks" / "b.png", mask=True)
    assert [f.path.parent.name for f in unlabelled_files(tmp_path / "pairs", 64)] == ["images"]


def test_labels_come_along_and_a_bad_pair_is_passed_over(tmp_path):
    cases = []
    for i, size in enumerate([(40, 60), (40, 61)]):
        image = write(tmp_path / f"{i}.png")
        mask = write(tmp_path / f"{i}_mask.png", size, seed=9, mask=True)
        cases.append(Case(image, mask, "endoscopy", {1: "polyp"}, f"g{i}", "train", "set"))
    pictures = Pictures(labelled_files(cases, 64))
    assert len(pictures) == len(pictures.failures) == 1
    assert "1_mask.png" in pictures.failures[0][1]
    assert pictures.groups == ["set/g0"]
    assert pictures[0].label.any()
    assert pictures[0].known == (True,)
