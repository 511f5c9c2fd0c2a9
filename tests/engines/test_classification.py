# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training of classifiers: the step, calibration, a whole small run of the router that is stopped and continued."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from monai_effsam.checkpoints.classifier_file import (
    build_classifier,
    load_classifier,
    save_classifier,
    weights_told,
)
from monai_effsam.data.routing.batches import ClassBatch
from monai_effsam.data.sets import read_sets
from monai_effsam.engines import class_folders
from monai_effsam.engines.class_folders import ClassFolder, FolderBatches, finish_classifier
from monai_effsam.engines.classification import ClassificationStep, ClassifierRecipe, calibrate, settle_norms
from monai_effsam.engines.router_training import (
    build_router_trainer,
    finish_router,
    routing_data,
    routing_loader,
)
from monai_effsam.engines.run_keeper import RunKeeper
from monai_effsam.errors import DataError, WeightsError
from monai_effsam.inference.router import ModalityRouter
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import MODALITIES, TARGETS

NETWORK = {"size": {"widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "head_channels": 8}}
SPEC = ImageSpec(32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), stride=32)
RECIPE = ClassifierRecipe(
    network=NETWORK, image_spec=SPEC.to_json(), epochs=2, epoch_length=2, batch=4, warm_size=32
)


@pytest.fixture
def sets(tmp_path):
    """A set of each modality, three cases to train on and one to validate; MR has two classes."""
    rows = ["set,modality,target,label_value"]
    for number, name in enumerate(MODALITIES):
        target = next(t.name for t in TARGETS if t.modality == name)
        rows.append(f"{name}_set,{name},{target},1")
        (tmp_path / f"{name}_set" / "images").mkdir(parents=True)
        with (tmp_path / f"{name}_set" / "splits.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", "mask", "split", "case", "label_class"])
            for case in range(4):
                picture = np.random.default_rng(case).integers(0, 40 + 30 * number, (24, 30, 3), np.uint8)
                cv2.imwrite(str(tmp_path / f"{name}_set" / "images" / f"{case}.png"), picture)
                kind = ("even", "odd")[case % 2] if name == "mr" else ""
                table.writerow(
                    [f"images/{case}.png", "none.png", "val" if case == 3 else "train", f"p{case}", kind]
                )
    (tmp_path / "targets.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def run(sets, out, recipe=RECIPE, resume=False, stop=None):
    torch.manual_seed(0)
    data = routing_data(read_sets(sets), recipe)
    network = build_classifier(recipe.network, 8)
    keeper = RunKeeper(out, recipe, network, resume)
    trainer = build_router_trainer(recipe, network, routing_loader(data, recipe), keeper, max_epochs=stop)
    if stop:
        trainer.run()
        return None
    return finish_router(trainer, keeper, recipe, data, out / "model.pt")


def test_the_loss_falls_on_a_batch_that_is_seen_again():
    torch.manual_seed(0)
    step = ClassificationStep(build_classifier(NETWORK, 3), smoothing=0.1)
    batch = ClassBatch(torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2]))
    optimizer = torch.optim.AdamW(step.parameters(), 1e-2)
    losses = []
    for number in range(12):
        terms = step(batch, number)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["loss"].item())
    assert losses[-1] < 0.7 * losses[0]


def test_targets_may_be_probabilities():
    torch.manual_seed(0)
    step = ClassificationStep(build_classifier(NETWORK, 3), smoothing=0.5).eval()
    image, hard = torch.randn(2, 3, 32, 32), torch.tensor([0, 2])
    soft = torch.nn.functional.one_hot(hard, 3).float()
    plain = ClassificationStep(step.network).eval()
    assert torch.allclose(step(ClassBatch(image, soft), 0)["loss"], plain(ClassBatch(image, hard), 0)["loss"])


def test_calibration_finds_the_temperature_and_keeps_the_known():
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(4000, 4, generator=generator) * 2
    target = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    found = calibrate(true * 3, target, recall=0.9)
    assert found.temperature == pytest.approx(3, rel=0.1)
    best = true.softmax(1)[:, :3].amax(1)[target < 3]
    assert float((best >= found.threshold).float().mean()) == pytest.approx(0.9, abs=0.02)
    assert found.pictures == 4000


def test_norms_are_settled_on_the_pictures_that_are_shown():
    torch.manual_seed(0)
    network = build_classifier(NETWORK, 3)
    batch = ClassBatch(5 + 3 * torch.randn(32, 3, 64, 64), torch.zeros(32, dtype=torch.int64))
    with torch.no_grad():
        wanted = network.train()(batch.image)
        assert not torch.allclose(network.eval()(batch.image), wanted, atol=0.1)
        settle_norms(network, [batch])
        assert torch.allclose(network(batch.image), wanted, atol=0.1)
    assert not network.training


def test_a_run_gives_a_router_that_says_what_it_was_trained_on(sets, tmp_path):
    path = run(sets, tmp_path / "run")
    router = ModalityRouter.open(path, "torch")
    assert router.rule.modalities == MODALITIES
    assert router.card["sources"]["mr_set/odd"] == 1
    assert router.card["parameters"] == sum(p.numel() for p in load_classifier(path).network.parameters())
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "run" / "losses.jsonl").read_text().splitlines()
    ]
    assert steps == [1, 2, 3, 4]


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(sets, tmp_path):
    run(sets, tmp_path / "whole")
    run(sets, tmp_path / "parts", stop=1)
    run(sets, tmp_path / "parts", resume=True)
    one, other = ((tmp_path / name / "losses.jsonl").read_text() for name in ("whole", "parts"))
    assert one == other


def test_sources_left_out_and_validation_are_not_read(sets):
    cases = read_sets(sets)
    data = routing_data(cases, replace(RECIPE, left_out=("mr_set/odd",)))
    assert "mr_set/odd" not in data.sources
    assert sum(data.sources.values()) == 6 * 3 + 2  # case 1 of MR is odd
    with pytest.raises(DataError, match="no picture of mr"):
        routing_loader(routing_data(cases, replace(RECIPE, left_out=("mr_set",))), RECIPE)
    with pytest.raises(DataError, match="no pictures of split 'train'"):
        routing_data([case for case in cases if case.split == "val"], RECIPE)


def test_a_classifier_s_file_is_checked(tmp_path):
    network = build_classifier(NETWORK, 3)
    path = save_classifier(tmp_path / "model.pt", network, SPEC, NETWORK, ("a", "b", "c"))
    loaded = load_classifier(tmp_path)
    assert loaded.classes == ("a", "b", "c")
    assert loaded.spec == SPEC
    image = torch.rand(1, 3, 40, 32)
    assert torch.allclose(loaded.network(image), network.eval()(image), atol=1e-2)  # stored in 16 bits
    card = json.loads(path.with_suffix(".json").read_text())
    again = build_classifier(NETWORK, 3, init=tmp_path)
    assert torch.equal(again.head.weight, loaded.network.head.weight)
    assert weights_told(tmp_path) == card["sha256"]
    assert weights_told(None) == ""
    with pytest.raises(WeightsError, match="do not fit TicClassifier"):
        build_classifier(NETWORK, 4, init=tmp_path)
    path.with_suffix(".json").write_text(json.dumps({**card, "classes": ["a", "b"]}))
    with pytest.raises(WeightsError, match="do not fit TicClassifier"):
        load_classifier(path)
    path.with_suffix(".json").write_text(json.dumps({**card, "network": {"width": 3}}))
    with pytest.raises(WeightsError, match="describes no classifier"):
        load_classifier(path)


@pytest.fixture
def folder(tmp_path):
    """ImageNet's layout: two classes of three pictures each."""
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            (tmp_path / "imagenet" / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
                cv2.imwrite(str(tmp_path / "imagenet" / split / name / f"{number}.JPEG"), pixels)
    return tmp_path / "imagenet"


def test_a_class_folder_names_its_classes(folder):
    pictures = ClassFolder(folder, "val", SPEC)
    assert pictures.classes == ("n01", "n02")
    assert [pictures[i]["label"] for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert pictures[0]["image"].shape == (3, 32, 32)
    with pytest.raises(DataError, match="expected test/CLASS/FILE"):
        ClassFolder(folder, "test", SPEC)


def test_an_epoch_shows_each_picture_once_and_mixes(folder, monkeypatch):
    seen = []
    pictures = ClassFolder(folder, "train", SPEC)
    monkeypatch.setattr(pictures, "transform", lambda picture: torch.full((3, 32, 32), float(len(seen))))
    real = ClassFolder.__getitem__
    monkeypatch.setattr(ClassFolder, "__getitem__", lambda self, i: seen.append(i) or real(self, i))
    loader = FolderBatches(pictures, 2, workers=0)
    drawn = list(loader)
    assert sorted(seen) == list(range(6))
    assert [batch.target.shape for batch in drawn] == [(2, 2)] * 3
    assert all(torch.allclose(batch.target.sum(1), torch.ones(2)) for batch in drawn)
    first = list(seen)
    seen.clear()
    loader.epoch = 1
    list(loader)
    assert seen != first


def test_processes_share_an_epoch(folder, monkeypatch):
    pictures = ClassFolder(folder, "train", SPEC)
    monkeypatch.setattr(class_folders.idist, "get_world_size", lambda: 3)
    orders = []
    for rank in range(3):
        monkeypatch.setattr(class_folders.idist, "get_rank", lambda rank=rank: rank)
        loader = FolderBatches(pictures, 2, workers=0)
        assert len(loader) == 1
        orders.append(next(iter(loader)).image)
    assert not torch.equal(orders[0], orders[1])
    with pytest.raises(DataError, match="expected at least 9"):
        FolderBatches(pictures, 3, workers=0)


def test_a_class_folder_trains_a_classifier(folder, tmp_path):
    loader = FolderBatches(ClassFolder(folder, "train", SPEC, augmented=True), 2, workers=0)
    recipe = replace(RECIPE, epochs=1, epoch_length=len(loader), smoothing=0.0)
    network = build_classifier(NETWORK, 2)
    keeper = RunKeeper(tmp_path / "run", recipe, network)
    trainer = build_router_trainer(recipe, network, loader, keeper)
    path = finish_classifier(trainer, keeper, recipe, loader.folder.classes, tmp_path / "run" / "model.pt")
    assert load_classifier(path).classes == ("n01", "n02")
