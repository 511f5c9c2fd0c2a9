# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The promptable model that ships: it follows the box, and answers alike in every runtime."""

import numpy as np
import pytest

from monai_effsam.checkpoints import load_checkpoint
from monai_effsam.data.io import read_image, read_label
from monai_effsam.data.sets import read_sets
from monai_effsam.inference import Segmenter
from monai_effsam.inference.export import EXPORTS, export_model
from monai_effsam.inference.model_path import shipped_models
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.metrics.overlap import dice_score
from monai_effsam.specs import Prompts

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SETS = ("kvasir_seg", "isic2018", "hc18", "busi")


@pytest.fixture(scope="module")
def model():
    return load_checkpoint(shipped_models()["kd_sam"]).model


@pytest.fixture(scope="module")
def pictures(shared):
    """(image, label, modality) of three val pictures a set that hold something."""
    chosen = []
    for name in SETS:
        cases = [c for c in read_sets(shared / "data", [name]) if c.split == "val"]
        read = ((read_image(c.image, modality=c.modality), c) for c in cases)
        labelled = ((image, read_label(c.mask, image)[0] > 0, c.modality) for image, c in read)
        filled = (row for row in labelled if row[1].any())
        chosen += [next(filled) for _ in range(3)]
    return chosen


def box_of(label):
    rows, columns = np.flatnonzero(label.any(1)), np.flatnonzero(label.any(0))
    return Prompts(box=(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)))


def masks(segmenter, pictures):
    return [segmenter.segment(i, m, prompts=box_of(label)).mask[0] > 0 for i, label, m in pictures]


def test_a_box_gives_its_object(model, pictures):
    found = masks(Segmenter(TorchRuntime(model)), pictures)
    dice = [dice_score(mask, label) for mask, (_, label, _) in zip(found, pictures, strict=True)]
    assert np.mean(dice) > 0.88


def test_the_box_decides_and_not_the_picture(model, pictures):
    """Half of an object's box gives less than the object: what lies outside the box is not meant."""
    segmenter = Segmenter(TorchRuntime(model))
    shares = []
    for image, label, modality in pictures:
        x0, y0, x1, y1 = box_of(label).box
        half = Prompts(box=(x0, y0, (x0 + x1) / 2, y1))
        mask = segmenter.segment(image, modality, prompts=half).mask[0] > 0
        columns = np.arange(mask.shape[1]) > (x0 + x1) / 2
        shares.append((mask & columns).sum() / max(1, (label & columns).sum()))
    assert np.median(shares) < 0.5


@pytest.mark.parametrize("runtime", EXPORTS)
def test_every_runtime_gives_the_same_masks(model, pictures, tmp_path, runtime):
    folder = export_model(model, tmp_path / "exported", (runtime,))
    expected = masks(Segmenter(TorchRuntime(model)), pictures)
    found = masks(Segmenter.open(folder, runtime, threads=1), pictures)
    worst = min(dice_score(a, b) for a, b in zip(found, expected, strict=True))
    assert worst > 0.999
