# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A picture, a prompt and foreign weights: equal to what the authors' own code does, step by step."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from monai_effsam.checkpoints import FAMILIES, LoadedModel, load_checkpoint
from monai_effsam.errors import UsageError
from monai_effsam.inference import outline_prompted
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.networks.foreign import import_segment_anything
from monai_effsam.networks.nets import PromptableSam
from monai_effsam.specs import Prompts
from monai_effsam.targets import TARGETS

PROMPTS = {
    "box": Prompts(box=(95, 255, 190, 350)),
    "points": Prompts(points=((120.5, 300), (10, 20)), labels=(1, 0)),
    "both": Prompts(points=((120.5, 300),), labels=(1,), box=(95, 255, 190, 350)),
}


@pytest.fixture(scope="module")
def rgb():
    """A smooth picture of the worked example's size, 531 x 622."""
    noise = np.random.default_rng(0).random((8, 9, 3)).astype(np.float32)
    return (cv2.resize(noise, (622, 531), interpolation=cv2.INTER_CUBIC).clip(0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def sam(make_sam):
    """segment-anything's own network, at 256 px."""
    return make_sam(size=256)


@pytest.fixture(scope="module")
def sam_file(sam, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "sam.pth"
    torch.save(sam.state_dict(), path)
    return path


def predicted(sam, rgb, prompts, multimask):
    """What segment-anything's own predictor answers: (masks, quality, logits at the picture's size)."""
    predictor = import_segment_anything().SamPredictor(sam)
    predictor.set_image(rgb)
    given = {"box": None if prompts.box is None else np.array(prompts.box)}
    if prompts.points:
        given |= {"point_coords": np.array(prompts.points), "point_labels": np.array(prompts.labels)}
    logits, quality, _ = predictor.predict(**given, multimask_output=multimask, return_logits=True)
    return logits > sam.mask_threshold, quality, logits


def same(found, masks, quality, scores):
    np.testing.assert_allclose(found.quality, quality, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.scores, scores, atol=1e-3)
    assert 0.001 < masks.mean() < 0.999
    assert (found.masks == masks).mean() > 0.9999


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_sam_equals_segment_anythings_predictor(sam, sam_file, rgb, prompts, multimask):
    loaded = load_checkpoint(sam_file, family="sam")
    found = outline_prompted(TorchRuntime(loaded.model), rgb, prompts, multimask=multimask)
    assert found.masks.shape == (3 if multimask else 1, *rgb.shape[:2])
    same(found, *predicted(sam, rgb, prompts, multimask))


@pytest.mark.slow
def test_vit_b_at_full_size_equals_segment_anythings_predictor(scatter, rgb, tmp_path):
    torch.manual_seed(0)
    sam = scatter(import_segment_anything().sam_model_registry["vit_b"]())
    torch.save(sam.state_dict(), tmp_path / "sam_vit_b.pth")
    loaded = load_checkpoint(tmp_path / "sam_vit_b.pth", family="sam")
    assert (loaded.layout, loaded.spec) == ("vit_b", FAMILIES["sam"].spec)
    found = outline_prompted(TorchRuntime(loaded.model), rgb, PROMPTS["box"])
    same(found, *predicted(sam, rgb, PROMPTS["box"], multimask=False))


def parts(sam, image, box):
    """segment-anything's parts called one by one, as MedSAM's scripts do: low-resolution logits and quality."""
    sparse, dense = sam.prompt_encoder(
        points=None, boxes=torch.tensor(box, dtype=torch.float32)[None], masks=None
    )
    return sam.mask_decoder(
        image_embeddings=sam.image_encoder(image),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )


@torch.inference_mode()
def test_medsam_equals_its_authors_recipe(sam, sam_file, rgb):
    box = PROMPTS["box"].box
    factors = np.array([531 / 256, 622 / 256, 1])
    smooth = ndimage.gaussian_filter(rgb.astype(float), (factors - 1) / 2, mode="mirror")
    small = ndimage.zoom(smooth, 1 / factors, order=3, mode="mirror", grid_mode=True)
    small = np.clip(small, rgb.min(), rgb.max()).astype(np.uint8)
    image = (small - small.min()) / np.clip(small.max() - small.min(), 1e-8, None)
    scaled = np.array(box) / np.array([622, 531, 622, 531]) * 256
    logits, quality = parts(sam, torch.tensor(image).float().permute(2, 0, 1)[None], scaled)
    whole = F.interpolate(logits.sigmoid(), size=(531, 622), mode="bilinear", align_corners=False)[0].numpy()

    loaded = load_checkpoint(sam_file, family="medsam")
    found = outline_prompted(TorchRuntime(loaded.model), rgb, PROMPTS["box"])
    same(found, whole > 0.5, quality[0].numpy(), whole - 0.5)


@torch.inference_mode()
def test_lite_medsam_equals_its_authors_recipe(scatter, rgb):
    torch.manual_seed(0)
    network = scatter(PromptableSam({"name": "tiny_vit", "stem_stride": 1}))
    spec = replace(FAMILIES["lite_medsam"].spec, size=64)  # a quarter of its size, for speed
    ratio = 64 / 622
    small = cv2.resize(rgb, (int(622 * ratio + 0.5), int(531 * ratio + 0.5)), interpolation=cv2.INTER_AREA)
    image = (small - small.min()) / np.clip(small.max() - small.min(), 1e-8, None)
    padded = np.pad(image, ((0, 64 - small.shape[0]), (0, 0), (0, 0)))
    box = [int(x * ratio) for x in PROMPTS["box"].box]
    embedding = network.encode(torch.tensor(padded).float().permute(2, 0, 1)[None])
    low = network.decode(embedding, boxes=torch.tensor([[box]], dtype=torch.float32))
    crop = low.mask_logits[0][..., : small.shape[0], : small.shape[1]]
    whole = F.interpolate(crop, size=(531, 622), mode="bilinear", align_corners=False)[0]

    model = LoadedModel(network, {"": spec}, TARGETS, {}, Path("lite_medsam.pth"))
    found = outline_prompted(TorchRuntime(model), rgb, PROMPTS["box"])
    same(found, (whole.sigmoid() > 0.5).numpy(), low.quality[0, 0].numpy(), whole.numpy())


def test_families_differ_on_the_same_weights(sam_file, rgb):
    """What is at stake where the family is guessed: same keys, another outline."""
    scores = []
    for family in ("sam", "medsam"):
        loaded = load_checkpoint(sam_file, family=family)
        scores.append(outline_prompted(TorchRuntime(loaded.model), rgb, PROMPTS["box"]).scores)
    assert abs(scores[0] - scores[1]).max() > 0.1


@pytest.mark.parametrize(
    ("prompts", "message"),
    [(Prompts(), "no prompt given"), (Prompts(box=(0, 0, 700, 10)), "outside the image")],
)
def test_prompts_that_cannot_be_used_are_refused(sam_file, rgb, prompts, message):
    loaded = load_checkpoint(sam_file, family="sam")
    with pytest.raises(UsageError, match=message):
        outline_prompted(TorchRuntime(loaded.model), rgb, prompts)
