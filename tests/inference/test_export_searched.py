# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Searched networks as graphs: every operation, promptable and self-prompting, as torch computes them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from monai_effsam.inference.export.esp_medsam import write_esp_medsam
from monai_effsam.inference.export.promptable_sam import write_promptable_sam
from monai_effsam.inference.export.tracing import write_openvino
from monai_effsam.nas.cost import build_promptable
from monai_effsam.nas.space import OPERATIONS, Architecture, DecoderShape, NeckShape, StageShape
from monai_effsam.networks.encoders.timm_encoder import fold_batch_norm
from monai_effsam.networks.nets import EspMedSam

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

_OPS = tuple(name for name, operation in OPERATIONS.items() if not operation.reference)
NET = Architecture(
    (StageShape(4, 16, _OPS[:9]), StageShape(8, 32, _OPS[9:]), StageShape(16, 16)),
    stride=8,
    size=64,
    neck=NeckShape(16),
    decoder=DecoderShape(64, 1, 64),
)


def stirred(network):
    """With norms and experts that are not those of a fresh network."""
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.7, 1.5)
    for name, parameter in network.named_parameters():
        if "experts" in name:
            nn.init.normal_(parameter, std=0.2)
    return network.eval()


def answers(file, feed):
    """Of ONNX Runtime and OpenVINO, the first output."""
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(write_openvino(file)[0], "CPU", options)
    return session.run(None, feed)[0], compiled(feed)[0]


def test_promptable(tmp_path):
    torch.manual_seed(0)
    network = stirred(build_promptable(NET))
    files = write_promptable_sam(network, 64, tmp_path)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        encoded = network.encode(image)
        masks = network.decode(encoded, boxes=torch.tensor([[[8.0, 9.0, 40.0, 50.0]]] * 2)).mask_logits
    want = encoded.embedding.numpy()
    for found in answers(files["encoder"], {"image": image.numpy()}):
        np.testing.assert_allclose(found, want, atol=2e-4)
    assert np.ptp(want) > 0.5
    corners = np.array([[[[8, 9], [40, 50]]]] * 2, np.float32)
    feed = {"embedding": want, "points": corners, "labels": np.array([[[2, 3]]] * 2)}
    for found in answers(files["decoder"], feed):
        np.testing.assert_allclose(found[:, :, :1], masks.numpy(), atol=2e-4)


@pytest.mark.slow
def test_self_prompting(tmp_path):
    torch.manual_seed(0)
    network = stirred(EspMedSam(**NET.self_prompting()))
    file = write_esp_medsam(network, 64, tmp_path)["encoder"]
    image = torch.randn(1, 3, 64, 96)
    for modality in (0, 3):
        with torch.no_grad():
            want = network.encode(image, torch.tensor([modality])).embedding.numpy()
        for found in answers(file, {"image": image.numpy(), "modality": np.array([modality])}):
            np.testing.assert_allclose(found, want, atol=2e-4)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("trunk", ["inverted", "inverted_same"])
def test_trunks_of_inverted_residuals_have_their_padding_in_the_convolutions(trunk, fold, tmp_path):
    torch.manual_seed(0)
    stages = (
        StageShape(4, 24, ("mbconv_k3_e2",), "mbconv_k3_e2"),
        StageShape(8, 40, ("dwsep_k5",), "mbconv_k5_e2"),
        StageShape(16, 48, (), "mbconv_k7_e2"),
    )
    network = stirred(build_promptable(replace(NET, stages=stages, trunk=trunk)))
    if fold:
        fold_batch_norm(network.image_encoder)
    files = write_promptable_sam(network, 64, tmp_path)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        want = network.encode(image).embedding.numpy()
    for found in answers(files["encoder"], {"image": image.numpy()}):
        np.testing.assert_allclose(found, want, atol=2e-4)
    assert np.ptp(want) > 0.5
    kinds = [node.op_type for node in onnx.load(files["encoder"]).graph.node]
    assert "Pad" not in kinds
    assert "BatchNormalization" not in kinds
