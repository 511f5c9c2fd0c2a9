# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The segmenter over a real (small, random) `EspMedSam`: the contract between the two."""

from pathlib import Path

import numpy as np
import pytest
import torch

from monai_effsam.checkpoints import LoadedModel
from monai_effsam.data.io import Image, read_image
from monai_effsam.inference import Segmenter
from monai_effsam.inference.plan import Request, make_plan
from monai_effsam.inference.run import run_plan
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec, Prompts
from monai_effsam.targets import TARGETS, targets_of


@pytest.fixture(scope="module")
def real():
    torch.manual_seed(0)
    network = EspMedSam({"name": "timm", "model": "mobilenetv2_035", "embed_channels": 32})
    network.presence_shift.fill_(9.0)  # everything is present
    specs = {
        name: ImageSpec(size=96 if name == "mr" else 64, resize="longest") for name in network.modalities
    }
    model = LoadedModel(network, specs, TARGETS, {}, Path("model.pt"))
    return Segmenter(TorchRuntime(model), batch_size=3)


def noise(*shape: int) -> Image:
    slices = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return Image(Path("x.png"), "x", slices, None, None, None, "raster", len(slices) > 1, geometry=None)


@pytest.mark.parametrize("modality", ["endoscopy", "ultrasound", "ct", "mr"])
def test_every_target_of_the_modality_is_answered(real, modality):
    result = real.segment(noise(1, 50, 70, 3), modality)
    assert [t.name for t in result.found] == [t.name for t in targets_of(modality)]
    assert set(np.unique(result.mask)) <= {0, *(t.value for t in targets_of(modality))}
    assert all(0 <= t.quality <= 1 and t.presence > 0.9 for t in result.found)


def test_a_volume_equals_its_slices_one_by_one(real):
    volume = noise(7, 40, 30)
    whole = real.segment(volume, "mr")
    single = np.stack([real.segment(noise_slice(volume, i), "mr").mask[0] for i in range(7)])
    assert (whole.mask == single).mean() > 0.999  # batches may differ in the last bit of a float
    assert whole.mask.any()


def noise_slice(volume: Image, index: int) -> Image:
    return Image(
        volume.path, "x", volume.slices[index : index + 1], None, None, None, "raster", False, geometry=None
    )


def test_prompts_change_the_answer_and_the_encoding_is_reused(real):
    image = noise(1, 64, 64, 3)
    encoding = real.encode(image, 0, "ultrasound")
    plain = real.decode(encoding, targets=["fetal_head"])
    boxed = real.decode(encoding, targets=["fetal_head"], prompts=Prompts(box=(5, 5, 20, 20)))
    clicked = real.decode(encoding, targets=["fetal_head"], prompts=Prompts(((9, 9), (40, 40)), (1, 0)))
    both = real.decode(encoding, targets=["fetal_head"], prompts=Prompts(((9, 9),), (1,), (5, 5, 20, 20)))
    qualities = [float(d.quality[0, 0]) for d in (plain, boxed, clicked, both)]
    assert len(set(qualities)) == 4
    again = real.segment(image, "ultrasound", targets=["fetal_head"], prompts=Prompts(box=(5, 5, 20, 20)))
    np.testing.assert_array_equal(again.mask, boxed.mask)


def test_results_do_not_depend_on_what_came_before(real):
    image = noise(1, 50, 70, 3)
    first = real.segment(image, "fundus").mask
    real.segment(noise(1, 20, 30, 3), "ct")
    np.testing.assert_array_equal(real.segment(image, "fundus").mask, first)


@pytest.mark.data
def test_dicom_tells_its_modality_and_a_caller_may_know_better(real, shared, tmp_path):
    path = shared / "data" / "dicom" / "ct_small.dcm"
    told = run_plan(make_plan(Request((path,), tmp_path / "a")), real)[0].record
    assert (told["modality"], told["modality_source"], told["notes"]) == ("ct", "dicom", [])
    assert "error" not in told
    known = run_plan(make_plan(Request((path,), tmp_path / "b", modality="mr")), real)[0].record
    assert (known["modality"], known["modality_source"]) == ("mr", "caller")
    assert "the DICOM attributes tell ct" in known["notes"][0]


@pytest.mark.data
def test_a_volume_is_measured_in_millilitres_and_written_on_its_grid(real, shared, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    path = shared / "data" / "hippocampus" / "images" / "hippocampus_124.nii.gz"
    record = run_plan(make_plan(Request((path,), tmp_path, modality="mr")), real)[0].record
    mask, source = nibabel.load(tmp_path / record["mask"]), nibabel.load(path)
    assert mask.shape == source.shape
    np.testing.assert_array_equal(mask.affine, source.affine)
    values = np.asarray(mask.dataobj)
    for target in record["targets"]:
        assert target["area_px"] == int((values == target["value"]).sum())
        assert target["volume_ml"] == pytest.approx(target["area_px"] / 1000, abs=1e-4)
    assert len(read_image(path)) in source.shape
