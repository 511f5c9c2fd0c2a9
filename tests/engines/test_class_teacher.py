# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The teacher of a classifier: its weights, its head, what a student takes from it, and a run with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from monai_effsam.checkpoints.classifier_file import build_classifier
from monai_effsam.checkpoints.trunk import load_timm_trunk
from monai_effsam.data.routing.batches import ClassBatch
from monai_effsam.data.routing.pictures import ModalityPicture
from monai_effsam.engines.class_teacher import ClassGuide, ClassTeacher
from monai_effsam.engines.classification import ClassificationStep, ClassifierRecipe
from monai_effsam.engines.router_training import (
    RoutingData,
    build_router_trainer,
    router_teacher,
    routing_loader,
)
from monai_effsam.engines.run_keeper import RunKeeper
from monai_effsam.errors import UnknownNameError, UsageError, WeightsError
from monai_effsam.networks.foreign import import_timm
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import MODALITIES

NAME = "test_efficientnet"
NETWORK = {"size": {"widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "head_channels": 8}}
SPEC = ImageSpec(32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), stride=32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of timm's smallest network."""
    torch.manual_seed(0)
    trunk = import_timm().create_model(NAME, num_classes=0)
    state = {k: v for k, v in trunk.state_dict().items() if not k.endswith("num_batches_tracked")}
    path = tmp_path_factory.mktemp("trunk") / "trunk.safetensors"
    save_file(state, path)
    return path


@pytest.fixture
def teacher(weights):
    return ClassTeacher(NAME, weights, SPEC, 3)


def batches(count=4, seed=0):
    """Views whose class is their colour."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        target = torch.randint(3, (16,), generator=generator)
        image = torch.randn(16, 3, 32, 32, generator=generator)
        image[torch.arange(16), target] += 3
        yield ClassBatch(image, target)


def test_a_trunk_is_checked(weights, tmp_path):
    trunk = load_timm_trunk(NAME, weights)
    assert trunk(torch.zeros(1, 3, 32, 32)).shape == (1, trunk.num_features)
    save_file(
        trunk.state_dict(), tmp_path / "counted.safetensors"
    )  # as timm gives it, with the norms' counters
    assert load_timm_trunk(NAME, tmp_path / "counted.safetensors") is not None
    with pytest.raises(UnknownNameError, match="timm network"):
        load_timm_trunk("test_efficientnett", weights)
    with pytest.raises(WeightsError, match="do not fit test_resnet"):
        load_timm_trunk("test_resnet", weights)
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="no readable safetensors"):
        load_timm_trunk(NAME, tmp_path / "empty.safetensors")


def test_the_teacher_sees_pictures_normalised_its_own_way(teacher):
    grey = torch.rand(2, 3, 32, 32)
    told = teacher((grey - 0.5) / 0.25)
    mean, std = (torch.tensor(teacher.trunk.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert torch.allclose(told.features, teacher.trunk((grey - mean) / std), atol=1e-4)
    small = teacher((grey[..., :16, :16] - 0.5) / 0.25)  # enlarged to the size that the head knows
    large = torch.nn.functional.interpolate(grey[..., :16, :16], size=(32, 32), mode="bilinear")
    assert torch.allclose(small.features, teacher.trunk((large - mean) / std), atol=1e-4)


def test_a_head_is_fitted_and_nothing_else_learns(teacher):
    assert teacher.fit(batches()) > 0.95
    fresh = next(batches(1, seed=9))
    told = teacher(fresh.image)
    assert (told.logits.argmax(1) == fresh.target).float().mean() > 0.8
    seen = torch.cat([teacher(batch.image).features for batch in batches()])
    assert torch.allclose(seen.mean(0), torch.zeros(teacher.width), atol=1e-3)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.train().trunk.training


def test_a_student_comes_nearer_to_its_teacher(teacher):
    torch.manual_seed(0)
    teacher.fit(batches())
    student = build_classifier(NETWORK, 3)
    step = ClassificationStep(student, guide=ClassGuide(teacher, student, weight=1.0))
    batch = next(batches(1))
    optimizer = torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], 1e-2)
    found = []
    for number in range(15):
        terms = step(
            replace(batch, target=torch.zeros(16, dtype=torch.int64)), number
        )  # labels must not count
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        found.append({name: float(value.detach()) for name, value in terms.items()})
    assert found[-1]["kl"] < 0.5 * found[0]["kl"]
    assert found[-1]["distance"] < 0.8 * found[0]["distance"]
    assert found[0]["loss"] == pytest.approx(found[0]["kl"] + found[0]["distance"], rel=1e-5)


def test_a_run_keeps_what_maps_features(weights, tmp_path):
    recipe = ClassifierRecipe(
        network=NETWORK, image_spec=SPEC.to_json(), epochs=1, epoch_length=1, batch=4, warm_size=32, teacher=NAME,
        teacher_views=2,
    )  # fmt: skip
    noise = np.random.default_rng(0).integers(0, 256, (len(MODALITIES), 40, 40, 3), np.uint8)
    pictures = [ModalityPicture(one, name, name, "") for one, name in zip(noise, MODALITIES, strict=True)]
    data = RoutingData(tuple(pictures), (), (), {})
    with pytest.raises(UsageError, match="Give their path"):
        router_teacher(data, recipe, None)
    assert router_teacher(data, replace(recipe, teacher=""), None) is None
    teacher = router_teacher(data, recipe, weights)
    network = build_classifier(NETWORK, 8)
    keeper = RunKeeper(tmp_path, recipe, network)
    build_router_trainer(recipe, network, routing_loader(data, recipe), keeper, teacher=teacher).run()
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["guide"]["weight"].shape == (teacher.width, 8)
    assert not any("teacher" in key for key in kept["network"])
