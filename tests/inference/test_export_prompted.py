# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""An exported SAM gives what the network gives: boxes, points, several masks, many prompts on many images."""

import numpy as np
import pytest
import torch

from monai_effsam.checkpoints import LoadedModel
from monai_effsam.errors import UsageError
from monai_effsam.inference import outline_prompted
from monai_effsam.inference.export import EXPORTS, export_model, parity
from monai_effsam.inference.runtimes.exported import read_exported
from monai_effsam.inference.runtimes.prompted import PromptedGraphs
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.networks.nets import PromptableSam
from monai_effsam.specs import ImageSpec, Prompts
from monai_effsam.targets import TARGETS

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

ENCODERS = {
    "vit": {"name": "sam_vit", "size": 64, "width": 32, "depth": 2, "heads": 2, "global_blocks": (1,)},
    "timm": {"name": "timm", "model": "mobilenetv2_035", "skips": ()},
    "tic": {"name": "tic", "size": "nano"},
    "drawn": {"name": "timm", "model": "mobilenetv2_035", "skips": ()},
}


@pytest.fixture(scope="module", params=ENCODERS)
def exported(request, scatter, tmp_path_factory):
    """(model, folder); prompts live in a frame twice the image."""
    torch.manual_seed(0)
    network = scatter(PromptableSam(ENCODERS[request.param], prompt_size=128, drawn=request.param == "drawn"))
    spec = ImageSpec(64, resize="longest", prompt_size=128)
    path = tmp_path_factory.mktemp("sam")
    model = LoadedModel(network, {"": spec}, TARGETS, {"name": "sam"}, path / "sam.pth")
    return model, export_model(model, path / "exported")


@pytest.mark.parametrize("runtime", EXPORTS)
def test_masks_are_those_of_the_network(exported, runtime):
    found = parity(*exported, runtime)
    assert found["mask_logits"] < 1e-3 * found["largest_logit"]
    assert found["quality"] < 1e-3
    assert found["largest_logit"] > 1e-2


@pytest.mark.parametrize("runtime", EXPORTS)
def test_many_prompts_on_many_images_in_one_pass(exported, runtime):
    model, folder = exported
    graphs = PromptedGraphs(read_exported(folder), runtime, threads=1)
    random = np.random.RandomState(0)
    images = random.randn(2, 3, 64, 64).astype(np.float32)
    embedding = graphs.encode(images)
    np.testing.assert_allclose(graphs.encode_at_once(images), embedding, atol=1e-4, rtol=1e-3)
    boxes = np.sort(random.rand(2, 5, 2, 2) * 128, axis=2).astype(np.float32)  # (B, N, corner, xy)
    masks, quality = graphs.many_outlines(embedding, boxes, np.tile([2, 3], (2, 5, 1)))
    with torch.no_grad():
        encoded = model.network.encode(torch.from_numpy(images))
        expected = model.network.decode(encoded, boxes=torch.from_numpy(boxes.reshape(2, 5, 4)))
    np.testing.assert_allclose(masks[:, :, :1], expected.mask_logits.numpy(), atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(quality[:, :, :1], expected.quality.numpy(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("runtime", EXPORTS)
def test_a_picture_is_outlined_as_torch_outlines_it(exported, runtime):
    model, folder = exported
    rgb = np.random.RandomState(1).randint(0, 255, (50, 80, 3)).astype(np.uint8)
    graphs = PromptedGraphs(read_exported(folder), runtime, threads=1)
    for prompts in (Prompts(box=(10, 5, 60, 40)), Prompts(points=((20.0, 20.0), (70.0, 3.0)), labels=(1, 0))):
        found = outline_prompted(graphs, rgb, prompts, multimask=True)
        expected = outline_prompted(TorchRuntime(model), rgb, prompts, multimask=True)
        np.testing.assert_allclose(found.quality, expected.quality, atol=1e-4, rtol=1e-3)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3, rtol=1e-3)
        assert found.masks.shape == (3, 50, 80)
        assert (found.masks == expected.masks).mean() > 0.999
    with pytest.raises(UsageError, match="no prompt given"):
        outline_prompted(graphs, rgb, Prompts())
    with pytest.raises(UsageError, match="outlines what it is prompted for"):
        graphs.decode(graphs.encode(np.zeros((1, 3, 64, 64), np.float32)), 0)
