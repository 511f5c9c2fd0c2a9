# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Every image that pydicom, nibabel and the data folder bring: read right or refused in one line, by a table.

`shipped_files.csv` has a row a file. Each row was looked at: the picture itself, and its header beside what was read
of it. Pixels of all that ITK's GDCM reads too were equal to ITK's, except JPEG in RGB that does not say so, where ITK
shows wrong colours, and 16- and 32-bit RGB in RLE, which ITK does not read.
"""

import csv
from importlib.metadata import version
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pydicom
import pytest

from monai_effsam.data.io import Image, find_inputs, read_image, write_mask
from monai_effsam.errors import DataError

pytestmark = [
    pytest.mark.usefixtures("core_decoders"),
    pytest.mark.filterwarnings(
        "ignore:Expected explicit VR", "ignore:Invalid value", "ignore:Unknown DICOM tag"
    ),
]

TABLE = Path(__file__).with_name("shipped_files.csv")
NO_IMAGES = {".py", ".pyc", ".pyi", ".json", ".md", ".rst", ".txt", ".m", ".ini", ".dump", ".typed", ""}
PLACES = {
    "pydicom": Path(pydicom.__file__).parent / "data",
    "nibabel": Path(nibabel.__file__).parent,
    "shared": Path(__file__).resolve().parents[4] / "shared" / "data" / "dicom",
}
COLUMNS = ("package", "file", "outcome", "shape", "modality", "spacing_mm", "step_mm", "grey", "why")


def rows() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shipped(package: str) -> list[str]:
    """Files of a package that may be taken for images, as the table names them."""
    root = PLACES[package]
    found = (p for p in sorted(root.rglob("*")) if p.is_file())
    return [
        p.relative_to(root).as_posix()
        for p in found
        if p.suffix not in NO_IMAGES or "dicomdirtests" in p.parts
    ]


def told(package: str, name: str) -> tuple[dict[str, str], Image | None]:
    """The row that reading a file gives, and the image."""
    path = PLACES[package] / name
    row = dict.fromkeys(COLUMNS, "") | {"package": package, "file": name}
    try:
        image = read_image(path)
    except DataError as error:
        text = str(error)
        assert text.startswith(f"{path}: ")
        assert "\n" not in text
        assert text.endswith(".")
        return row | {"outcome": "refused", "why": text.removeprefix(f"{path}: ")}, None
    values = {
        "outcome": image.kind, "shape": "x".join(map(str, image.slices.shape)), "modality": image.modality or "",
        "spacing_mm": " ".join(f"{v:.6g}" for v in image.spacing_mm or ()),
        "step_mm": "" if image.slice_step_mm is None else f"{image.slice_step_mm:.6g}",
        "grey": f"{image.slices.mean():.0f}", "why": " ".join(image.notes),
    }  # fmt: skip
    return row | values, image


ROWS = rows()
OWN = [row for row in ROWS if row["package"] != "shared"]


def name_of(row: dict[str, str]) -> str:
    return f"{row['package']}-{row['file']}"


@pytest.mark.parametrize("package", ["pydicom", "nibabel"])
def test_the_table_has_every_file(package):
    named = {row["file"] for row in ROWS if row["package"] == package}
    files = set(shipped(package))
    missing, gone = (
        sorted(files - named),
        sorted(n for n in named - files if not (PLACES[package] / n).is_dir()),
    )
    assert (missing, gone) == ([], []), (
        f"{package} {version(package)} has other files than the table. Look at them."
    )


@pytest.mark.data
def test_the_table_has_every_file_of_the_data_folder():
    assert [row["file"] for row in ROWS if row["package"] == "shared"] == shipped("shared")


@pytest.mark.parametrize("row", OWN, ids=name_of)
def test_a_shipped_file_is_what_the_table_says(row, tmp_path):
    check(row, tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("row", [row for row in ROWS if row["package"] == "shared"], ids=name_of)
def test_a_file_of_the_data_folder_is_what_the_table_says(row, tmp_path):
    check(row, tmp_path)


def check(row: dict[str, str], out: Path) -> None:
    """Read, compare with the table, and lay a mask on the grid of the file as another library sees it."""
    found, image = told(row["package"], row["file"])
    assert found == row
    if image is None:
        return
    assert image.slices.dtype == np.uint8
    mask = np.random.default_rng(0).integers(0, 25, (len(image), *image.size), dtype=np.uint8)
    written = write_mask(image, mask, out)
    if image.kind == "nifti":
        check_nifti(image, mask, written)
    else:
        check_dicom(image, mask, written)


def check_nifti(image: Image, mask: np.ndarray, written: Path) -> None:
    """The mask has the grid of the file; each voxel of it lies where its pixel's picture lies."""
    source, result = nibabel.load(image.path), nibabel.load(written)
    assert result.shape == source.shape
    assert np.array_equal(result.affine, source.affine)
    back = np.asarray(result.dataobj)
    assert (image.geometry.view.slices(back) == mask).all()
    values = np.nan_to_num(np.asarray(source.dataobj, np.float64))
    shown = np.asarray(image.geometry.view.slices(values))
    inner = (image.slices > 0) & (image.slices < 255)  # not clipped by the scaling
    if np.unique(image.slices[inner]).size > 2:
        assert np.corrcoef(shown[inner], image.slices[inner])[0, 1] > 0.999


def check_dicom(image: Image, mask: np.ndarray, written: Path) -> None:
    """Size, count and spacing are those of the header; the mask has one pixel for each of the source."""
    heads = [pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in image.sources]
    assert {(head.Rows, head.Columns) for head in heads} == {image.size}
    assert sum(int(head.get("NumberOfFrames") or 1) for head in heads) == len(image)
    stated = heads[0].get("PixelSpacing") or heads[0].get("ImagerPixelSpacing")
    if stated:
        assert image.spacing_mm == tuple(map(float, stated))
    if len(image) == 1:
        assert (cv2.imread(str(written), cv2.IMREAD_UNCHANGED) == mask[0]).all()
        return
    result = nibabel.load(written)
    assert (np.asarray(result.dataobj) == mask.transpose(2, 1, 0)).all()
    if image.is_volume:
        first = np.array(heads[0].ImagePositionPatient, np.float64) * [-1, -1, 1]
        assert np.allclose(result.affine[:3, 3], first)
        row = np.array(heads[0].ImageOrientationPatient[:3], np.float64) * [-1, -1, 1]
        assert np.allclose(result.affine[:3, 0], row * image.spacing_mm[1], atol=1e-4)


def test_a_folder_of_everything_gives_an_input_a_file_or_series():
    """Slices of one series and plane are stacks; all else of the folder stays single."""
    folder = PLACES["pydicom"] / "test_files" / "dicomdirtests"
    stacks = {source.name: len(source.paths) for source in find_inputs([folder]) if len(source.paths) > 1}
    assert stacks == {"CT2": 4, "CT5N": 5}
