# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The inferer answers as the segmenter does, for one modality of a real network."""

import cv2
import numpy as np
import pytest
import torch

from monai_effsam.checkpoints import LoadedModel
from monai_effsam.data.io import read_image
from monai_effsam.data.transforms import FitToSpecd, UndoSpecd
from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.inference import Segmenter
from monai_effsam.inference.inferer import PromptedInferer, SelfPromptingInferer
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ImageSpec, Prompts
from monai_effsam.targets import TARGETS, targets_of


@pytest.fixture(scope="module")
def network():
    """A small network with random weights; half of its targets are held to be absent."""
    torch.manual_seed(0)
    encoder = {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2}
    net = EspMedSam(encoder, decoder={"mlp_dim": 32, "hyper_dim": 16, "channels": [16, 8, 8]}).eval()
    net.presence_scale.zero_()
    net.presence_shift.copy_(torch.where(torch.arange(len(TARGETS)) % 2 == 0, 5.0, -5.0))
    return net


@pytest.mark.parametrize("modality", ["mr", "ultrasound"])
@torch.no_grad()
def test_the_bundle_s_way_gives_the_segmenter_s_mask(network, tmp_path, modality):
    cv2.imwrite(str(tmp_path / "a.png"), np.random.RandomState(3).randint(0, 255, (50, 70), np.uint8))
    specs = {name: ImageSpec(64, "longest") for name in network.modalities}
    model = LoadedModel(network, specs, TARGETS, {}, tmp_path / "model.pt")
    image = read_image(tmp_path / "a.png")
    expected = Segmenter(TorchRuntime(model)).segment(image, modality).mask
    item = FitToSpecd("image", specs, modality)({"image": image})
    item["pred"] = SelfPromptingInferer(modality)(item["image"][None], network)[0]
    np.testing.assert_array_equal(UndoSpecd("pred")(item)["pred"].numpy(), expected)


@torch.no_grad()
def test_slices_of_a_stack_do_not_see_each_other(network):
    stack = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    inferer = SelfPromptingInferer(batch_size=2)
    found = inferer(stack, network, "mr")
    assert found.shape[:3] == (1, len(targets_of("mr")), 5)
    alone = inferer(stack[:, :, 3], network, ["mr"])
    torch.testing.assert_close(found[:, :, 3], alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_absent_targets_get_no_mask(network):
    found = SelfPromptingInferer("mr")(torch.rand(1, 3, 32, 32), network)[0]
    own = [i for i, t in enumerate(TARGETS) if t.modality == "mr"]
    assert [bool((layer == -20).all()) for layer in found] == [i % 2 == 1 for i in own]


def test_what_it_cannot_answer_it_says(network):
    image = torch.zeros(1, 3, 32, 32)
    with pytest.raises(UsageError, match="no modality is given"):
        SelfPromptingInferer()(image, network)
    with pytest.raises(UsageError, match="2 images in a batch, expected 1"):
        SelfPromptingInferer("mr")(torch.zeros(2, 3, 32, 32), network)
    with pytest.raises(UsageError, match="network is Identity, expected EspMedSam"):
        SelfPromptingInferer("mr")(image, torch.nn.Identity())
    with pytest.raises(UnknownNameError, match="modality 'mri' is unknown"):
        SelfPromptingInferer("mri")(image, network)


@pytest.fixture(scope="module")
def prompted():
    torch.manual_seed(0)
    encoder = {"name": "sam_vit", "size": 64, "width": 32, "depth": 2, "heads": 2, "global_blocks": [1]}
    return PromptableSam({**encoder, "embed_channels": 32}, mlp_dim=32).eval()


@torch.inference_mode()
def test_prompts_of_a_call_go_before_the_inferer_s_own(prompted, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 80), 90, np.uint8))
    item = FitToSpecd("image", {"": ImageSpec(64)})({"image": str(tmp_path / "a.png")})
    image, fitted = item["image"][None], item["image_fitted"]
    inferer = PromptedInferer(box=[10, 5, 60, 30])
    boxes = torch.tensor([[[8.0, 8.0, 48.0, 48.0]]])  # stretched to 64 x 64
    torch.testing.assert_close(
        inferer(image, prompted, fitted), prompted(image, boxes=boxes).mask_logits[:, 0]
    )
    other = Prompts(points=((40.0, 20.0),), labels=(1,))
    places = {"points": torch.tensor([[[[32.0, 32.0]]]]), "labels": torch.ones(1, 1, 1, dtype=torch.int64)}
    found = inferer(image, prompted, fitted, prompts=other)
    torch.testing.assert_close(found, prompted(image, **places).mask_logits[:, 0])
    assert found.shape == (1, 1, 16, 16)


def test_a_viewer_hands_on_the_tensor_alone_and_writes_the_box_as_text(tmp_path, prompted):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 80), 90, np.uint8))
    item = FitToSpecd("image", {"": ImageSpec(64)}, carry=True)({"image": str(tmp_path / "a.png")})
    expected = PromptedInferer(box=[10, 5, 60, 30])(item["image"][None], prompted, item["image_fitted"])
    for text in ("10,5,60,30", " 10, 5 60 30.0"):
        found = PromptedInferer(box=text)(item["image"][None], prompted)
        torch.testing.assert_close(found, expected)
    with pytest.raises(UsageError, match="no prompt is given"):
        PromptedInferer(box="")(item["image"][None], prompted)
    for wrong in ("10,5,60", "a,b,c,d", [1, 2, 3]):
        with pytest.raises(UsageError, match="expected x0,y0,x1,y1 in pixels"):
            PromptedInferer(box=wrong)


def test_what_cannot_be_prompted_is_refused(prompted):
    inferer, image = PromptedInferer(box=[1, 1, 2, 2]), torch.zeros(1, 3, 64, 64)
    with pytest.raises(UsageError, match="network is Identity, expected PromptableSam"):
        inferer(image, torch.nn.Identity())
    with pytest.raises(UsageError, match="Prompt one 2D image"):
        inferer(image[:, :, None], prompted)
    with pytest.raises(UsageError, match="fitted is NoneType, expected what FitToSpecd leaves"):
        inferer(image, prompted)
    with pytest.raises(UsageError, match="2 points but 1 labels"):
        PromptedInferer(points=[[1, 1], [2, 2]], labels=[1])
