# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Exported graphs give what torch gives, whatever modality, size, batch and prompt; a folder is whole or not there."""

import json

import numpy as np
import pytest
import torch

from monai_effsam.checkpoints import LoadedModel, load_model
from monai_effsam.errors import UnknownNameError, UsageError, WeightsError
from monai_effsam.inference.export import EXPORTS, export_model, parity
from monai_effsam.inference.runtimes import PromptArrays, open_runtime
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec

POINTS = np.array([[[20.0, 30.0], [50.0, 10.0]]], np.float32)
LABELS = np.array([[1, 0]], np.int64)
BOX = np.array([[8.0, 12.0, 40.0, 56.0]], np.float32)


@pytest.fixture(scope="module")
def reference(tiny_model):
    return TorchRuntime(load_model(tiny_model))


@pytest.fixture(scope="module", params=EXPORTS)
def runtime(request, tiny_exported):
    return open_runtime(tiny_exported, request.param, threads=1)


def noise(batch=1, height=64, width=64):
    return np.random.RandomState(batch + height).randn(batch, 3, height, width).astype(np.float32)


def assert_alike(one, two):
    for name, left, right in zip(one._fields, one, two, strict=True):
        assert left.dtype == right.dtype == np.float32
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("modality", range(7))
def test_every_modality_has_its_own_answer(reference, runtime, modality):
    expected = reference.decode(reference.encode(noise(), modality), modality)
    found = runtime.decode(runtime.encode(noise(), modality), modality)
    assert_alike(found, expected)
    other = reference.decode(reference.encode(noise(), (modality + 1) % 7), modality)
    assert np.abs(expected.mask_logits - other.mask_logits).max() > 1e-2  # the encoder's experts are in it


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (3, 64, 64), (2, 96, 128)])
def test_batch_and_size_are_free(reference, runtime, batch, height, width):
    image = noise(batch, height, width)
    assert_alike(runtime.decode(runtime.encode(image, 1), 1), reference.decode(reference.encode(image, 1), 1))


@pytest.mark.parametrize(
    "prompt",
    [
        PromptArrays(POINTS[:, :1], LABELS[:, :1], None),
        PromptArrays(POINTS, LABELS, None),
        PromptArrays(None, None, BOX),
        PromptArrays(POINTS, LABELS, BOX),
    ],
    ids=["point", "points", "box", "both"],
)
def test_prompts_of_any_kind_and_number(reference, runtime, prompt):
    expected = reference.decode(reference.encode(noise(), 0), 0, prompt)
    assert_alike(runtime.decode(runtime.encode(noise(), 0), 0, prompt), expected)
    free = reference.decode(reference.encode(noise(), 0), 0)
    assert np.abs(expected.mask_logits - free.mask_logits).max() > 1e-2  # and the prompt matters


def test_one_patch_map_for_all_targets_can_be_exported_too(tmp_path):
    torch.manual_seed(1)
    network = EspMedSam(
        {"name": "timm", "model": "mobilenetv2_035", "embed_channels": 32},
        patch_per_target=False,
        decoder={"shared_hyper_mlp": True, "channels": (8, 8, 8)},
    ).eval()
    specs = {name: ImageSpec(size=32) for name in network.modalities}
    model = LoadedModel(network, specs, network.targets, {}, tmp_path / "model.pt")
    folder = export_model(model, tmp_path / "out", ["onnxruntime"])
    found = parity(model, folder, "onnxruntime")
    assert found["mask_logits"] < 1e-4 < found["largest_logit"]
    assert not list(folder.glob("*.xml"))


def test_the_manifest_says_what_was_exported(tiny_exported, tiny_model):
    manifest = json.loads((tiny_exported / "manifest.json").read_text())
    model = load_model(tiny_model)
    assert manifest["sha256"] == model.card["sha256"]
    assert set(manifest["graphs"]) == set(EXPORTS)
    assert len(manifest["targets"]) == len(model.targets)
    assert {name: ImageSpec.from_json(v) for name, v in manifest["specs"].items()} == model.specs
    named = {f for roles in manifest["graphs"].values() for files in roles.values() for f in files}
    assert named | {"manifest.json"} == {path.name for path in tiny_exported.iterdir()}


def test_a_folder_that_exists_is_left_alone(tiny_model, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("precious")
    for overwrite in (False, True):  # even then: it holds no exported model
        with pytest.raises(UsageError, match="exists, expected a new folder"):
            export_model(load_model(tiny_model), tmp_path / "mine", overwrite=overwrite)
    assert (tmp_path / "mine" / "note.txt").read_text() == "precious"


def test_nothing_stays_of_an_export_that_fails(tiny_model, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("monai_effsam.inference.export.folder._manifest", full)
    monkeypatch.setattr("monai_effsam.inference.export.folder._write_graphs", lambda *a: {})
    with pytest.raises(ValueError, match="No space left"):
        export_model(load_model(tiny_model), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_networks_that_cannot_be_parted_are_refused(tmp_path):
    network = EspMedSam(
        {"name": "timm", "model": "mobilenetv2_035", "embed_channels": 32}, decoder={"query_mode": "single"}
    )
    specs = {name: ImageSpec(size=32) for name in network.modalities}
    model = LoadedModel(network, specs, network.targets, {}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="query_mode 'single', expected 'modality'"):
        export_model(model, tmp_path / "out")
    with pytest.raises(UnknownNameError, match="tensorrt"):
        export_model(model, tmp_path / "out", ["tensorrt"])
    assert list(tmp_path.iterdir()) == []
