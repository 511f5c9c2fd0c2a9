# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The bundle of the modality router: its files agree with the package, and its configurations run."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from monai.bundle import verify_net_in_out

from monai_effsam import __version__
from monai_effsam.checkpoints.classifier_file import load_classifier
from monai_effsam.engines.classification import ClassifierRecipe
from monai_effsam.inference.router import ModalityRouter
from monai_effsam.metrics.complexity import count_parameters
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import MODALITIES, TARGETS
from tests.bundles.checks import assert_components_exist, verify_schema

SHARED = ("epochs", "epoch_length", "seed", "rate", "warm_share", "gentle_share")
NAMES = ("train", "imagenet_train", "inference", "evaluate", "multi_gpu_train")


@pytest.fixture(scope="module")
def configs(root):
    folder = root / "bundles" / "tic_classifier" / "configs"
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}


@pytest.fixture
def router_bundle(root, tiny_router, tmp_path):
    """A copy of the bundle with a small random router."""
    folder = tmp_path / "tic_classifier"
    shutil.copytree(root / "bundles" / "tic_classifier", folder, ignore=shutil.ignore_patterns("models"))
    shutil.copytree(tiny_router, folder / "models")
    return folder


@pytest.fixture
def class_folder(tmp_path):
    """ImageNet's layout: two classes of two pictures each."""
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            (tmp_path / "imagenet" / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
                cv2.imwrite(str(tmp_path / "imagenet" / split / name / f"{number}.JPEG"), pixels)
    return tmp_path / "imagenet"


@pytest.mark.parametrize("name", NAMES)
def test_every_component_can_be_imported(configs, name):
    assert_components_exist(configs[name])


@pytest.mark.filterwarnings("ignore:The metaschema specified:DeprecationWarning")  # of old jsonschema
def test_the_metadata_follow_the_schema_and_name_the_modalities(root, configs):
    verify_schema(root, "tic_classifier")
    channels = configs["metadata"]["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(channels.values()) == [*MODALITIES, "unknown"]


def test_versions_are_those_that_are_tested(root, configs):
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;#]+)", (root / "constraints.txt").read_text(), re.MULTILINE))
    metadata = configs["metadata"]
    assert metadata["required_packages_version"]["monai-effsam"] == __version__
    assert (metadata["monai_version"], metadata["pytorch_version"]) == (pins["monai"], pins["torch"])


def test_the_network_takes_and_gives_what_the_metadata_say(router_bundle):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(router_bundle / "configs" / "metadata.json"),
        config_file=str(router_bundle / "configs" / "inference.json"),
        bundle_root=str(router_bundle),
        device="cpu",
        n=2,
    )


def test_the_training_is_as_long_as_the_recipe_says(configs):
    recipe = ClassifierRecipe()
    told = {name: configs["train"][name] for name in SHARED}
    assert told == {name: getattr(recipe, name) for name in told}


def test_the_training_runs_whole_and_gives_a_router(workflow, router_bundle, tmp_path):
    rows = ["set,modality,target,label_value"]
    for number, name in enumerate(MODALITIES):
        rows.append(f"{name}_set,{name},{next(t.name for t in TARGETS if t.modality == name)},1")
        (tmp_path / "data" / f"{name}_set").mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "data" / f"{name}_set" / "0.png"), pixels)
        (tmp_path / "data" / f"{name}_set" / "splits.csv").write_text(
            "image,mask,split,case,label_class\n0.png,0.png,train,a,\n"
        )
    (tmp_path / "data" / "targets.csv").write_text("\n".join(rows) + "\n")
    small = {
        "batch": 2,
        "warm_size": 32,
        "network": {"size": {"widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "head_channels": 8}},
        "image_spec": ImageSpec(32, stride=32).to_json(),
    }
    workflow(
        "train", kind="train", where=router_bundle, dataset_dir=str(tmp_path / "data"), epochs=1, epoch_length=1,
        output_dir=str(tmp_path / "run"), ckpt_dir=str(tmp_path / "ck"),
        **{f"recipe#{name}": value for name, value in small.items()},
    ).run()  # fmt: skip
    card = load_classifier(tmp_path / "ck").card
    assert card["classes"] == [*MODALITIES, "unknown"]
    assert card["recipe"]["teacher"] == card["recipe"]["init"] == ""
    assert (tmp_path / "ck" / "model.onnx").is_file()


def test_inference_answers_as_the_router_does(workflow, router_bundle, pictures, tmp_path):
    flow = workflow(
        "inference", where=router_bundle, dataset_dir=str(pictures), output_dir=str(tmp_path / "out")
    )
    flow.run()
    told = json.loads((tmp_path / "out" / "modalities.json").read_text())
    picture = cv2.imread(str(pictures / "disk.png"))
    answer = ModalityRouter.open(router_bundle).tell_pixels([picture])
    assert told["disk.png"]["modality"] == answer.modality
    assert told["disk.png"]["probability"] == pytest.approx(answer.probability, abs=1e-3)


def test_the_imagenet_recipe_trains_and_validates(workflow, router_bundle, class_folder, tmp_path):
    size = {"widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "head_channels": 8}
    flow = workflow(
        "imagenet_train", kind="train", where=router_bundle, dataset_dir=str(class_folder), size=size, image_size=32,
        epochs=1, batch=2, workers=0, val_interval=1, output_dir=str(tmp_path / "run"), ckpt_dir=str(tmp_path / "ck"),
    )  # fmt: skip
    flow.run()
    model = load_classifier(tmp_path / "ck")
    assert model.classes == ("n01", "n02")
    assert set(flow.parser.get_parsed_content("validate#evaluator").state.metrics) == {"top1", "top5"}


def test_the_folder_is_complete(root):
    folder = root / "bundles" / "tic_classifier"
    files = ["docs/README.md", "docs/data_license.txt", "configs/logging.conf", "configs/metadata.json"]
    assert [name for name in files if not (folder / name).is_file()] == []
    assert not (folder / "scripts").exists()
    assert (folder / "LICENSE").read_bytes() == (root / "LICENSE").read_bytes()


def test_the_router_that_ships_is_small_and_both_its_forms_agree(root):
    folder = root / "bundles" / "tic_classifier"
    pytest.importorskip("onnxruntime")
    model = load_classifier(folder)
    assert count_parameters(model.network) == model.card["parameters"] <= 1_500_000
    noise = [np.random.default_rng(n).integers(0, 256, (60, 60, 3), np.uint8) for n in range(2)]
    by_graph, by_torch = (ModalityRouter.open(folder, name) for name in ("onnxruntime", "torch"))
    assert np.abs(by_graph.probabilities(noise) - by_torch.probabilities(noise)).max() < 1e-4
    assert by_graph.tell_pixels(noise).modality == "unknown"
