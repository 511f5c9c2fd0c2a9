# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The model that ships answers alike in every runtime, on real images: masks by Dice, logits by their largest gap."""

from pathlib import Path

import numpy as np
import pytest

from monai_effsam.checkpoints import load_model
from monai_effsam.data.io import read_image
from monai_effsam.data.sets import read_sets
from monai_effsam.inference import Segmenter, default_model_path
from monai_effsam.inference.export import EXPORTS, export_model
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.metrics.overlap import dice_score

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

PICTURES = 30
SETS = ("kvasir_seg", "isic2018", "chest_xray", "hc18", "busi", "acdc", "btcv_ct", "drive")


@pytest.fixture(scope="module")
def model():
    return load_model(default_model_path())


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> Path:
    return export_model(model, tmp_path_factory.mktemp("export") / "shipped")


@pytest.fixture(scope="module")
def pictures(shared):
    """(image, modality): val pictures of every set in turn."""
    sets = [[c for c in read_sets(shared / "data", [name]) if c.split == "val"] for name in SETS]
    chosen = [sets[i % len(sets)][i // len(sets)] for i in range(PICTURES)]
    return [(read_image(case.image, modality=case.modality), case.modality) for case in chosen]


@pytest.fixture(scope="module")
def expected(model, pictures):
    """Mask and logits of torch for each picture."""
    segmenter = Segmenter(TorchRuntime(model))
    return [answers(segmenter, image, modality) for image, modality in pictures]


def answers(segmenter, image, modality):
    encoding = segmenter.encode(image, 0, modality)
    logits = segmenter.runtime.decode(encoding.encoded, segmenter.modality_index(modality)).mask_logits
    return segmenter.decode(encoding).mask, logits


@pytest.mark.data
@pytest.mark.parametrize("runtime", EXPORTS)
def test_masks_and_logits_are_those_of_torch(runtime, exported, pictures, expected, record_property):
    segmenter = Segmenter.open(exported, runtime)
    worst_dice, worst_gap = 1.0, 0.0
    for (image, modality), (mask, logits) in zip(pictures, expected, strict=True):
        found, values = answers(segmenter, image, modality)
        dice = [dice_score(found == value, mask == value) for value in np.unique(mask[mask > 0])]
        worst_dice = min([worst_dice, *dice])
        worst_gap = max(worst_gap, float(np.abs(values - logits).max()))
    record_property("1 - worst Dice", 1 - worst_dice)
    record_property("largest difference of a logit", worst_gap)
    assert worst_dice >= 0.999
    assert worst_gap < 1e-3  # of logits up to about 60
