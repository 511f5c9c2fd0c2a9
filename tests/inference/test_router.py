# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The modality router: what it answers, from which file, by which runtime, and what is refused."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from monai_effsam.checkpoints.classifier_file import load_classifier
from monai_effsam.data.io import read_image
from monai_effsam.errors import MissingExtraError, UsageError, WeightsError
from monai_effsam.inference import modality, router
from monai_effsam.inference.modality import routed_modality, told_modality
from monai_effsam.inference.router import ModalityRouter, RoutingRule, shipped_router

DARK, GREY, BRIGHT = (np.full((20, 30, 3), level, np.uint8) for level in (5, 128, 250))


@pytest.fixture
def exported(tiny_router, tmp_path):
    """A copy of the random router with its graph."""
    pytest.importorskip("onnx")
    from monai_effsam.inference.export.classifier import export_classifier

    shutil.copytree(tiny_router, tmp_path / "copy")
    export_classifier(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def noise():
    return [np.random.default_rng(n).integers(0, 256, (40, 50, 3), np.uint8) for n in range(3)]


def test_a_picture_gets_its_modality_or_is_unknown(bright_router):
    assert bright_router.tell_pixels([DARK]).modality == "ct"
    assert bright_router.tell_pixels([BRIGHT]).modality == "xray"
    told = bright_router.tell_pixels([GREY])
    assert told.modality == "unknown"
    assert told.probability > 0.9


def test_slices_answer_together(bright_router):
    assert bright_router.tell_pixels([DARK, DARK, GREY]).modality == "ct"
    assert bright_router.tell_pixels([GREY, GREY, DARK]).modality == "unknown"


@pytest.mark.parametrize(
    ("temperature", "threshold", "told"), [(1, 0.5, "xray"), (1, 0.99, "unknown"), (9, 0.5, "unknown")]
)
def test_temperature_and_threshold_decide(bright_router, temperature, threshold, told):
    calibration = {"temperature": temperature, "threshold": threshold}
    rule = RoutingRule.of({**bright_router.card, "calibration": calibration})
    logits = np.full((1, 8), -3.0)
    logits[0, 3] = 2.0
    assert rule.answer(rule.probabilities(logits)).modality == told


def test_probabilities_are_those_of_a_softmax(bright_router):
    found = bright_router.rule.probabilities(np.array([[0.0, 1000.0, 0, 0, 0, 0, 0, 1000.0]]))
    assert found[0].tolist() == [0, 0.5, 0, 0, 0, 0, 0, 0.5]


def test_both_runtimes_answer_alike(exported, noise):
    pytest.importorskip("onnxruntime")
    by_graph, by_torch = ModalityRouter.open(exported), ModalityRouter.open(exported, "torch")
    assert (by_graph.runtime, by_torch.runtime) == ("onnxruntime", "torch")
    first, second = by_graph.probabilities(noise), by_torch.probabilities(noise)
    assert np.abs(first - second).max() < 1e-5
    assert np.ptp(first, axis=0).max() > 1e-4  # the network does not say the same of everything


def test_without_a_graph_or_without_the_runtime_torch_answers(tiny_router, exported, monkeypatch):
    assert ModalityRouter.open(tiny_router).runtime == "torch"

    def missing(*_):
        raise MissingExtraError("onnxruntime", "export")

    monkeypatch.setattr(router, "_onnx_run", missing)
    assert ModalityRouter.open(exported).runtime == "torch"
    with pytest.raises(MissingExtraError):
        ModalityRouter.open(exported, "onnxruntime")


def test_torch_is_not_loaded_for_the_graph(exported):
    pytest.importorskip("onnxruntime")
    code = (
        "import sys, numpy; from monai_effsam.inference.router import ModalityRouter\n"
        "ModalityRouter.open(sys.argv[1]).tell_pixels([numpy.zeros((9, 9, 3), 'uint8')])\n"
        "print(sorted({'torch', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_what_is_no_router_is_refused(tiny_router, tiny_model, exported, tmp_path):
    with pytest.raises(WeightsError, match=r"no router here"):
        ModalityRouter.open(tmp_path / "nowhere" / "deep")
    with pytest.raises(WeightsError, match="describes no classifier"):
        ModalityRouter.open(tiny_model)
    with pytest.raises(WeightsError, match="kind is 'self_prompting', expected classifier"):
        load_classifier(tiny_model)
    with pytest.raises(UsageError, match="expected onnxruntime or torch"):
        ModalityRouter.open(tiny_router, "openvino")
    (exported / "model.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match="not the graph that model"):
        ModalityRouter.open(exported)
    card = json.loads((exported / "model.json").read_text())
    (exported / "model.json").write_text(json.dumps({**card, "calibration": {}}))
    with pytest.raises(WeightsError, match="describes no modality router"):
        ModalityRouter.open(exported, "torch")


def test_a_volume_is_judged_by_its_middle(bright_router):
    slices = np.full((20, 8, 8), 250, np.uint8)
    slices[6:14] = 5
    image = SimpleNamespace(slices=slices, rgb=lambda i: np.repeat(slices[i][..., None], 3, 2), __len__=None)
    assert (
        bright_router.tell_pixels([image.rgb(i) for i in router.middle_slices(20, router.SLICES)]).modality
        == "ct"
    )


def image_of(picture, grey, modality_told=None):
    import dataclasses

    image = read_image(picture(size=(20, 20), grey=grey))
    filled = np.full_like(image.slices, grey)
    return dataclasses.replace(image, modality=modality_told, slices=filled)


def test_the_caller_comes_first_then_the_file_then_the_router(picture, bright_router, monkeypatch):
    monkeypatch.setattr(modality, "shipped_router", lambda: bright_router)
    told = told_modality(image_of(picture, 5, "mr"), "ct")
    assert (told.modality, told.source) == ("ct", "caller")
    assert "DICOM attributes tell mr" in told.notes[0]
    assert told_modality(image_of(picture, 5, "mr"), None) == ("mr", "dicom", ())
    assert told_modality(image_of(picture, 5), None) == (None, None, ())
    routed = routed_modality(image_of(picture, 5), "a.png", ("ct", "mr"))
    assert (routed.modality, routed.source, routed.notes) == ("ct", "router", ("looks like ct, 1.00",))


@pytest.mark.parametrize(
    ("grey", "known", "text"),
    [
        (
            128,
            ("ct", "mr"),
            "a.png: modality is unknown, expected one of ct, mr; the picture looks like none",
        ),
        (250, ("ct", "mr"), "expected one of ct, mr; looks like xray, .*Give --modality"),
    ],
)
def test_what_the_router_cannot_help_with_is_refused(picture, bright_router, monkeypatch, grey, known, text):
    monkeypatch.setattr(modality, "shipped_router", lambda: bright_router)
    with pytest.raises(UsageError, match=text):
        routed_modality(image_of(picture, grey), "a.png", known)


def test_without_a_router_the_caller_must_tell(picture, monkeypatch):
    monkeypatch.setattr(modality, "shipped_router", lambda: None)
    with pytest.raises(UsageError, match=r"expected one of ct\. Give --modality"):
        routed_modality(image_of(picture, 5), "a.png", ("ct",))


@pytest.fixture
def forgetful():
    shipped_router.cache_clear()
    yield
    shipped_router.cache_clear()


def test_a_router_that_cannot_be_opened_is_none(forgetful, monkeypatch, tmp_path):
    monkeypatch.setattr(router, "router_path", lambda: tmp_path)
    assert shipped_router() is None
