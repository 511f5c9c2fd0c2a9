# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A click by Slicer's own rule in volumes of every orientation: the mask lies on the object, on the file's grid."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("monailabel")
sitk = pytest.importorskip("SimpleITK")

from monai_effsam.labelling.tasks import inference_tasks  # noqa: E402
from tests.labelling.service.conftest import CENTRE, DIRECTIONS, SIZE  # noqa: E402


def clicked(path: Path, voxel) -> list[int]:
    """A voxel's place in RAS, through `RASToIJK` as Slicer has it of ITK's reading, rounded."""
    image = sitk.ReadImage(str(path))
    ras = nibabel.affines.apply_affine(nibabel.load(path).affine, voxel)
    lps = np.array([-ras[0], -ras[1], ras[2]])
    direction = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    return [round(v) for v in np.linalg.inv(direction) @ (lps - np.array(image.GetOrigin()))]


def centroid(stored: np.ndarray) -> np.ndarray:
    return np.array([axis.mean() for axis in np.nonzero(stored)])


def read(mask: str, path: Path) -> np.ndarray:
    """The mask in order [i, j, k], after its grid was found to be that of the image."""
    found, image = sitk.ReadImage(mask), sitk.ReadImage(str(path))
    assert found.GetSize() == image.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(found, name)(), getattr(image, name)(), atol=1e-6)
    assert found.GetPixelID() == sitk.sitkUInt8
    return sitk.GetArrayFromImage(found).transpose(2, 1, 0)


@pytest.mark.parametrize("orientation", DIRECTIONS)
def test_a_3d_click_finds_the_whole_object(service, volume, orientation, spacing):
    path = volume(orientation, spacing)
    mask, _ = inference_tasks(service)["prompted_3d"](
        {"image": str(path), "foreground": [clicked(path, CENTRE)]}
    )
    stored = read(mask, path)
    assert np.abs(centroid(stored) - CENTRE).max() < 1
    truth = nibabel.load(path).get_fdata() == 200
    assert 2 * (stored.astype(bool) & truth).sum() / (stored.sum() + truth.sum()) > 0.9


@pytest.mark.parametrize("orientation", DIRECTIONS)
def test_a_2d_click_fills_the_slice_that_slicer_looks_at(service, volume, orientation, spacing):
    path = volume(orientation, spacing)
    i, j, k = clicked(path, CENTRE)
    request = {"image": str(path), "foreground": [[i, j, k]], "slice": k, "label": "lesion"}
    mask, told = inference_tasks(service)["prompted_2d"](request)
    stored = read(mask, path)
    assert np.flatnonzero(stored.any(axis=(0, 1))).tolist() == [k]
    assert np.abs(centroid(stored)[:2] - CENTRE[:2]).max() < 1
    assert told["label_names"] == {"lesion": 1}


@pytest.mark.parametrize("orientation", DIRECTIONS)
def test_a_box_drawn_backwards_finds_the_object(service, volume, orientation):
    path = volume(orientation)
    (i, j, k), reach = clicked(path, CENTRE), (9, 11, 6)
    roi = [i + reach[0], i - reach[0], j + reach[1], j - reach[1], k + reach[2], k - reach[2]]
    mask, _ = inference_tasks(service)["prompted_3d"]({"image": str(path), "roi": roi})
    assert np.abs(centroid(read(mask, path)) - CENTRE).max() < 1


@pytest.mark.parametrize("orientation", DIRECTIONS)
def test_automatic_masks_lie_where_their_structure_does(service, volume, orientation, spacing):
    path = volume(orientation, spacing)
    mask, told = inference_tasks(service)["automatic"]({"image": str(path), "modality": "ct"})
    stored = read(mask, path)
    assert stored.shape == SIZE
    bright = stored == told["label_names"]["bright"]
    assert (nibabel.load(path).get_fdata()[bright] >= 200).mean() > 0.95
    assert bright.sum() > 0.7 * (nibabel.load(path).get_fdata() >= 200).sum()
