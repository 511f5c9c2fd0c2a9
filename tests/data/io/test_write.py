# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Files appear whole or not at all; inputs are never overwritten; overlays."""

import errno
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from monai_effsam.data.io import (
    Image,
    Source,
    atomic_path,
    draw_overlay,
    read_image,
    write_mask,
    write_overlay,
)
from monai_effsam.data.io.raster import PageGeometry
from monai_effsam.errors import DataError, ShapeError, UsageError

RED = {1: (255, 0, 0), 2: (0, 0, 255)}


def image_of(slices: np.ndarray, path: Path = Path("a.png")) -> Image:
    return Image(
        path=path, name="a", slices=slices, modality=None, spacing_mm=None, slice_step_mm=None, kind="raster",
        is_volume=False, geometry=PageGeometry(1, len(slices)),
    )  # fmt: skip


def test_the_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.nii.gz"
    with atomic_path(path) as beside:
        assert beside.parent == path.parent
        assert beside.name.endswith(".nii.gz")
        beside.write_bytes(b"half")
        assert not path.exists()
        number = beside.stat().st_ino
    assert path.stat().st_ino == number, "renamed, not copied"
    assert [p.name for p in path.parent.iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError, SystemExit])
def test_nothing_is_left_when_writing_stops(tmp_path, stop):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def interrupted():
        with atomic_path(path) as beside:
            beside.write_bytes(b"half")
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(self, content):
        self.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    image = image_of(np.zeros((1, 2, 3), np.uint8))
    with pytest.raises(
        DataError, match=r"a_mask\.png: cannot be written: No space left on device\. Check space"
    ):
        write_mask(image, np.zeros((1, 2, 3), np.uint8), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="cannot be written: "):
        write_mask(image_of(np.zeros((1, 2, 3), np.uint8)), np.zeros((1, 2, 3), np.uint8), tmp_path / "out")


def test_two_writers_of_one_file_both_finish(tmp_path):
    contents = [bytes([i]) * 200_000 for i in range(4)]

    def write(content):
        for _ in range(5):
            with atomic_path(tmp_path / "a") as beside:
                beside.write_bytes(content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() in contents
    assert len(list(tmp_path.iterdir())) == 1


def test_the_input_is_never_overwritten(tmp_path):
    path = tmp_path / "a_mask.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((2, 3), np.uint8))[1].tobytes())
    content = path.read_bytes()
    image = read_image(Source((path,), "raster", "a"))
    with pytest.raises(UsageError, match=r"a_mask\.png: is an input, expected another file"):
        write_mask(image, np.ones((1, 2, 3), np.uint8), tmp_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "mask", [np.zeros((1, 3, 2), np.uint8), np.zeros((2, 3), np.uint8), np.zeros((1, 2, 3), np.int64)]
)
def test_masks_that_do_not_fit_are_refused(tmp_path, mask):
    with pytest.raises(ShapeError, match=r"expected uint8 \(1, 2, 3\)"):
        write_mask(image_of(np.zeros((1, 2, 3), np.uint8)), mask, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_overlay_is_the_picture_with_a_fill_and_an_outline():
    rgb = np.full((40, 40, 3), 100, np.uint8)
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 1
    drawn = draw_overlay(rgb, mask, RED)
    assert drawn[0, 0].tolist() == [100, 100, 100]
    assert drawn[20, 20].tolist() == [162, 60, 60]
    assert drawn[10, 20].tolist() == [255, 0, 0]
    assert (rgb == 100).all()


def test_touching_targets_are_outlined_apart():
    mask = np.ones((20, 20), np.uint8)
    mask[:, 10:] = 2
    drawn = draw_overlay(np.zeros((20, 20, 3), np.uint8), mask, RED)
    assert drawn[10, 9].tolist() == [255, 0, 0]
    assert drawn[10, 10].tolist() == [0, 0, 255]
    assert drawn[10, 5].tolist() == [102, 0, 0]


def test_values_without_a_colour_are_white():
    mask = np.full((9, 9), 77, np.uint8)
    assert draw_overlay(np.zeros((9, 9, 3), np.uint8), mask, {})[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 1, 1), (1, 1)), ((1, 3, 5000), (1, 2048)), ((1, 30, 40), (30, 40))]
)
def test_overlay_of_a_picture_has_its_size_or_2048(tmp_path, shape, size):
    path = write_overlay(image_of(np.zeros(shape, np.uint8)), np.zeros(shape, np.uint8), RED, tmp_path)
    assert path.name == "a_overlay.png"
    assert cv2.imread(str(path)).shape[:2] == size


def test_overlay_of_a_stack_shows_the_slices_with_most_foreground(tmp_path):
    slices = np.zeros((40, 8, 8), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None] * 5
    mask = np.zeros_like(slices)
    for index in (3, 20, 31):
        mask[index, 0, : index // 3] = 1
    sheet = cv2.imread(str(write_overlay(image_of(slices), mask, RED, tmp_path)))
    assert sheet.shape == (512, 512, 3)
    tiles = [sheet[200, 200], sheet[200, 456], sheet[456, 200], sheet[456, 456]]
    assert [int(t[0]) for t in tiles] == [15, 100, 155, 0]


def test_overlay_of_an_empty_stack_shows_evenly_spread_slices(tmp_path):
    slices = np.zeros((100, 8, 8), np.uint8)
    slices[99] = 200
    sheet = cv2.imread(str(write_overlay(image_of(slices), np.zeros_like(slices), RED, tmp_path)))
    assert sheet.shape == (1024, 1024, 3)
    assert sheet[-1, -1].tolist() == [200, 200, 200]
