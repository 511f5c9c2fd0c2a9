# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Inputs of files and folders: what counts, what is passed over, unique names."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from monai_effsam.data.io import Source, find_inputs, output_paths, read_image
from monai_effsam.data.io.sniff import content_kind, stem
from monai_effsam.errors import DataError, UsageError


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.zeros((2, 3), np.uint8))[1].tobytes())
    return path


def names(*paths: Path) -> list[str]:
    return [source.name for source in find_inputs(paths)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "a"), ("a.b.PNG", "a.b"), ("a.nii.gz", "a"), ("a.nii", "a"), ("1.2.840", "1.2.840"),
        ("IM0001", "IM0001"), (".png", ".png"), ("a.tar.gz", "a.tar.gz"), ("a.nrrd", "a"),
    ],
)  # fmt: skip
def test_names_lose_known_endings_only(name, expected):
    assert stem(Path(name)) == expected


def test_folders_are_searched_with_their_subfolders_in_order(tmp_path):
    for name in ("b.png", "a.png", "sub/c.png"):
        picture(tmp_path / name)
    assert names(tmp_path) == ["a", "b", "c"]


def test_named_inputs_keep_their_order_and_come_once(tmp_path):
    b, a = picture(tmp_path / "b.png"), picture(tmp_path / "a.png")
    assert names(b, a, tmp_path) == ["b", "a"]


def test_folders_pass_over_what_is_no_image(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / ".hidden.png")
    picture(tmp_path / ".git/b.png")
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert names(tmp_path) == ["a"]


def test_damaged_pictures_of_a_folder_count_so_that_they_are_reported(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.jpg").write_text("text")
    found = find_inputs([tmp_path])
    assert [(s.name, s.kind) for s in found] == [("a", "raster"), ("b", None), ("c", None)]
    with pytest.raises(DataError, match=r"b\.png: file is empty, expected an image"):
        read_image(found[1])
    with pytest.raises(DataError, match=r"c\.jpg: content is no known image, expected PNG, JPEG"):
        read_image(found[2])


def test_pictures_without_an_ending_are_found(tmp_path):
    picture(tmp_path / "IM0001")
    assert names(tmp_path) == ["IM0001"]


def test_our_own_outputs_are_no_inputs(tmp_path):
    for name in ("a.png", "a_mask.png", "a_overlay.png"):
        picture(tmp_path / name)
    assert names(tmp_path) == ["a", "a_mask", "a_overlay"]
    (tmp_path / "results.jsonl").write_text("")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.png", "a.jpg", "b.png"], ["a_jpg", "a_png", "b"]),
        (["a.png", "A.jpg"], ["A_jpg", "a_png"]),
        (["x/a.png", "y/a.png"], ["x_a", "y_a"]),
        (["x/a.png", "x/a.jpg", "y/a.png"], ["a_jpg", "x_a", "y_a"]),
        (["x/a.png", "x/a.jpg", "y/a.png", "y/a.jpg"], ["x_a_jpg", "x_a_png", "y_a_jpg", "y_a_png"]),
        (["p/x/a.png", "q/x/a.png"], ["x_a_png", "x_a_png_2"]),
    ],
)
def test_no_two_inputs_share_a_name(tmp_path, files, expected):
    for name in files:
        picture(tmp_path / name)
    assert names(tmp_path) == expected


def test_missing_paths_and_empty_folders_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match=r"none\.png: no such file or folder, expected an image"):
        find_inputs([tmp_path / "none.png"])
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(UsageError, match="folder holds no images, expected"):
        find_inputs([tmp_path])


def test_folders_without_permission_are_usage_errors(tmp_path, monkeypatch):
    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(folder)))
        return iter(())

    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(UsageError, match="folder cannot be opened: Permission denied"):
        find_inputs([tmp_path])


def test_files_without_permission_are_named(tmp_path, monkeypatch):
    path = picture(tmp_path / "a.png")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UsageError, match=r"a\.png: no permission to read it"):
        find_inputs([path])
    source = Source((tmp_path / "gone.png",), None, "gone")
    with pytest.raises(DataError, match=r"gone\.png: file cannot be opened: No such file"):
        read_image(source)


def test_a_dicom_preamble_may_look_like_a_tiff(tmp_path):
    (tmp_path / "a").write_bytes(b"II*\0" + b"\0" * 124 + b"DICM")
    assert content_kind(tmp_path / "a") == "dicom"


def test_output_paths_are_all_that_may_be_written(tmp_path):
    source = Source((tmp_path / "a.png",), "raster", "a")
    assert [p.name for p in output_paths(source, tmp_path)] == [
        "a_mask.png",
        "a_mask.nii.gz",
        "a_overlay.png",
    ]
    assert output_paths(source, tmp_path, dicom_seg=True) == output_paths(source, tmp_path)
    scan = Source((tmp_path / "b.dcm",), "dicom", "b")
    assert output_paths(scan, tmp_path, dicom_seg=True)[-1].name == "b_seg.dcm"
    assert len(output_paths(scan, tmp_path)) == 3
