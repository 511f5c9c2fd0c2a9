# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""MSA-Conv and TiC as ONNX and OpenVINO graphs whose height and width are free."""

import numpy as np
import pytest
import torch
from torch import nn

from monai_effsam.checkpoints.classifier_file import build_classifier, load_classifier, save_classifier
from monai_effsam.inference.export.classifier import export_classifier
from monai_effsam.inference.export.tracing import trace_graph, write_openvino
from monai_effsam.networks.blocks import fold_tic_norms
from monai_effsam.networks.layers import MSAConv2d
from monai_effsam.networks.nets import TicClassifier
from monai_effsam.specs import ImageSpec

ort = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

LAYERS = {
    "release": lambda: MSAConv2d(8, 6, stride=2),
    "heads": lambda: MSAConv2d(8, 8, (5, 3), dilation=2, heads=2, border="mask", projection="pointwise"),
    "depthwise": lambda: MSAConv2d(8, 8, depthwise=True, projection="none", residual=False, act=None),
    "shifted": lambda: MSAConv2d(10, 8, heads=5, shift=5, inter_pool=3),
    "shut": lambda: MSAConv2d(10, 8, heads=5, shift=5, wrap=False, inter_pool=2, border="mask"),
    "circular": lambda: MSAConv2d(8, 8, heads=2, border="circular", projection="pointwise"),
}
SIZES = ((1, 16, 16), (2, 23, 17), (1, 5, 40), (3, 2, 3))


def answers(network, channels, folder):
    """(size, torch, ONNX Runtime, OpenVINO) for each size, of graphs traced at the first."""
    file = folder / "graph.onnx"
    free = {0: "batch", 2: "height", 3: "width"}
    trace_graph(network, (torch.zeros(1, channels, *SIZES[0][1:]),), file, ["x"], ["y"], {"x": free})
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(
        write_openvino(file)[0], "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    for batch, height, width in SIZES:
        x = torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            want = network(x).numpy()
        yield (height, width), want, session.run(None, {"x": x.numpy()})[0], compiled(x.numpy())[0]


@pytest.mark.parametrize("kind", LAYERS)
def test_layer(kind, tmp_path):
    torch.manual_seed(0)
    layer = LAYERS[kind]().eval()
    for _, want, onnx, vino in answers(layer, layer.qkv.in_channels, tmp_path):
        np.testing.assert_allclose(onnx, want, atol=1e-5)
        np.testing.assert_allclose(vino, want, atol=1e-5)


def test_a_hybrid_classifier_is_the_same_in_its_graph(tmp_path):
    torch.manual_seed(0)
    options = {"stem": "tf_mobilenetv3_small_minimal_100", "width": 32, "head_channels": 8}
    path = save_classifier(
        tmp_path / "model.pt", build_classifier(options, 5), ImageSpec(64, stride=16), options, "abcde"
    )
    session = ort.InferenceSession(str(export_classifier(path)), providers=["CPUExecutionProvider"])
    image = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        want = load_classifier(path).network(image).numpy()
    np.testing.assert_allclose(session.run(None, {"image": image.numpy()})[0], want, atol=1e-4)


@pytest.mark.slow
def test_classifier(tmp_path):
    torch.manual_seed(0)
    network = TicClassifier(5).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
    network.head.weight.data *= 10
    fold_tic_norms(network)
    seen = [(want, onnx, vino) for _, want, onnx, vino in answers(network, 3, tmp_path)]
    for want, onnx, vino in seen:
        np.testing.assert_allclose(onnx, want, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(vino, want, atol=1e-4, rtol=1e-4)
    assert np.ptp(seen[0][0]) > 0.1
