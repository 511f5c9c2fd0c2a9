# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Exported folders: prompts as tokens, what is refused, and which runtime opens what."""

import json
import shutil

import numpy as np
import pytest

from monai_effsam.errors import UnknownNameError, UsageError, WeightsError
from monai_effsam.inference.runtimes import PromptArrays, open_runtime
from monai_effsam.inference.runtimes.exported import prompt_tokens, read_exported


@pytest.fixture
def folder(tiny_exported, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_exported, tmp_path / "exported")


def test_no_prompt_is_no_token():
    points, labels = prompt_tokens(None, 3)
    assert points.shape == (3, 0, 2)
    assert labels.shape == (3, 0)


def test_points_are_followed_by_no_point_and_a_box_by_nothing():
    point, label = np.array([[[1.0, 2.0]]], np.float32), np.array([[0]], np.int64)
    box = np.array([[3.0, 4.0, 5.0, 6.0]], np.float32)
    points, labels = prompt_tokens(PromptArrays(point, label, None), 1)
    assert points.tolist() == [[[1, 2], [0, 0]]]
    assert labels.tolist() == [[0, -1]]
    points, labels = prompt_tokens(PromptArrays(point, label, box), 1)
    assert points.tolist() == [[[1, 2], [3, 4], [5, 6]]]
    assert labels.tolist() == [[0, 2, 3]]


def test_the_manifest_itself_may_be_named(folder):
    assert read_exported(folder / "manifest.json").targets == read_exported(folder).targets


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=99), "format is 99, expected at most 1"),
        (lambda m: m.pop("specs"), "describes no exported model"),
        (lambda m: m["specs"]["ct"].update(size=33), "size is 33, expected a positive multiple"),
        (lambda m: m.update(graphs={"onnxruntime": []}), "graphs hold no files"),
    ],
)
def test_a_manifest_that_cannot_be_understood_is_refused(folder, change, message):
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match=message):
        read_exported(folder)


def test_a_graph_that_was_exchanged_is_refused(folder):
    graph = folder / "encoder.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match=r"encoder.onnx: sha256 is .*damaged or was exchanged"):
        open_runtime(folder, "onnxruntime")
    (folder / "decoder.bin").unlink()
    with pytest.raises(WeightsError, match=r"decoder.bin: cannot be read"):
        open_runtime(folder, "openvino")


def test_a_runtime_that_was_not_exported_for_is_refused(folder):
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["graphs"]["openvino"]
    file.write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="holds no graphs for openvino, only for onnxruntime"):
        open_runtime(folder, "openvino")


def test_models_open_in_the_runtime_that_fits_them(tiny_model, folder):
    assert open_runtime(tiny_model).name == "torch"
    assert open_runtime(folder).name == "onnxruntime"
    assert open_runtime(folder, "openvino").name == "openvino"
    with pytest.raises(UsageError, match="is no exported model"):
        open_runtime(tiny_model, "openvino")
    with pytest.raises(UsageError, match="is an exported model"):
        open_runtime(folder, "torch")
    with pytest.raises(UnknownNameError, match="Did you mean 'openvino'"):
        open_runtime(folder, "opnvino")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_device_that_a_runtime_lacks_is_refused(folder, runtime):
    with pytest.raises(UsageError, match="--device: is 'npu', expected"):
        open_runtime(folder, runtime, "npu")
