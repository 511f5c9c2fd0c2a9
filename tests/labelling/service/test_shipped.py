# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The shipped models behind the tasks: right place in turned volumes, and the times that a user waits.

Times are logged (`--log-cli-level=INFO`) for the clock and asserted for the processor, one thread of it: a busy
machine then fails no test.
"""

import logging
import statistics
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("monailabel")
SimpleITK = pytest.importorskip("SimpleITK")

from monai_effsam.labelling.service import LabellingService  # noqa: E402
from monai_effsam.labelling.tasks import inference_tasks  # noqa: E402

logger = logging.getLogger(__name__)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tasks():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    services = {name: LabellingService(modality=name) for name in ("endoscopy", "ct")}
    yield {name: inference_tasks(service) for name, service in services.items()}
    for service in services.values():
        service.close()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures(root) -> list[str]:
    return [str(path) for path in sorted((root / "demo" / "images").glob("*.jpg"))]


def scan(folder: Path, side: int, slices: int) -> tuple[Path, np.ndarray]:
    """A CT with one bright ellipsoid, sagittal as stored, and where it is."""
    size, centre = (side, side, slices), (0.4 * side, 0.5 * side, 0.45 * slices)
    i, j, k = np.ogrid[: size[0], : size[1], : size[2]]
    radii = (0.12 * side, 0.16 * side, 0.28 * slices)
    inside = sum(((n - c) / r) ** 2 for n, c, r in zip((i, j, k), centre, radii, strict=True)) < 1
    noise = np.random.default_rng(0).normal(0, 15, size)
    values = (np.where(inside, 180, -20) + noise).astype(np.int16)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]) @ np.diag([400 / side, 400 / side, 5.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), folder / "ct.nii.gz")
    return folder / "ct.nii.gz", inside


def spent(task, requests) -> tuple[float, float]:
    """Median time of the clock and of the processor [ms]."""
    clock, processor = [], []
    for request in requests:
        start, used = time.perf_counter(), time.process_time()
        path, _ = task(request)
        clock.append((time.perf_counter() - start) * 1000)
        processor.append((time.process_time() - used) * 1000)
        Path(path).unlink()
    return statistics.median(clock), statistics.median(processor)


def told(what: str, times: tuple[float, float], most: float) -> None:
    logger.info("%s: %.0f ms of the clock, %.0f ms of one processor; target %.0f ms", what, *times, most)
    assert times[1] < most


def test_times_of_pictures(tasks, pictures):
    endoscopy = tasks["endoscopy"]
    spent(endoscopy["automatic"], [{"image": pictures[-1]}])
    spent(endoscopy["prompted_2d"], [{"image": pictures[-1], "foreground": [[50, 50, 0]]}])
    fresh = [{"image": path} for path in pictures[:6]]
    told("first automatic mask of an unseen picture", spent(endoscopy["automatic"], fresh), 400)
    told("automatic mask of an encoded picture", spent(endoscopy["automatic"], fresh), 120)
    clicks = [{"image": pictures[0], "foreground": [[60 + n, 70, 0]], "slice": 0} for n in range(12)]
    told("first click on a picture", spent(endoscopy["prompted_2d"], clicks[:1]), 400)
    told("next click on it", spent(endoscopy["prompted_2d"], clicks[1:]), 100)


def outlined(task, path: Path, truth: np.ndarray) -> tuple[np.ndarray, float]:
    """Distance of the centroids [voxels] and Dice of what a box in the middle slice gives."""
    (i0, j0, _), (i1, j1, _) = (end(axis=1) for end in (np.argwhere(truth).T.min, np.argwhere(truth).T.max))
    k = int(np.argwhere(truth)[:, 2].mean())
    start, used = time.perf_counter(), time.process_time()
    mask, _ = task({"image": str(path), "roi": [int(i1), int(i0), int(j1), int(j0), k, k]})
    times = (time.perf_counter() - start) * 1000, (time.process_time() - used) * 1000
    told(f"{truth.shape[2]} slices of {truth.shape[0]} x {truth.shape[1]}, prompted on one", times, 10_000)
    found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(mask)).transpose(2, 1, 0).astype(bool)
    Path(mask).unlink()
    centroids = [np.argwhere(array).mean(axis=0) for array in (found, truth)]
    return np.abs(centroids[0] - centroids[1]), 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_an_object_in_a_turned_volume_is_followed_to_its_place(tasks, tmp_path):
    distance, dice = outlined(tasks["ct"]["prompted_3d"], *scan(tmp_path, 128, 16))
    assert distance.max() < 1
    assert dice > 0.85


def test_a_large_ct_is_followed_in_time(tasks, tmp_path):
    distance, dice = outlined(tasks["ct"]["prompted_3d"], *scan(tmp_path, 512, 32))
    assert distance.max() < 512 / 320  # one pixel of the model
    assert dice > 0.85
