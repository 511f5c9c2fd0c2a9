# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What the bundle's files say agrees with the package: components, targets, versions, shapes.

The schema of metadata beside this file is MONAI's, under the Apache License, Version 2.0.
"""

import json
import re

import pytest
import torch
from monai.bundle import verify_net_in_out

from monai_effsam import __version__
from monai_effsam.engines.bundle_parts import bundle_specs
from monai_effsam.engines.recipe import read_recipe
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.targets import TARGETS
from tests.bundles.checks import assert_components_exist, verify_schema

NAMES = ("train", "inference", "evaluate", "multi_gpu_train", "distill_aggregator", "distill_controllers")


@pytest.fixture(scope="module")
def configs(root):
    """Content of every configuration, by name."""
    folder = root / "bundles" / "esp_medsam" / "configs"
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}


@pytest.fixture
def pred(configs):
    """What the metadata say of the network's output."""
    return configs["metadata"]["network_data_format"]["outputs"]["pred"]


@pytest.mark.parametrize("name", NAMES)
def test_every_component_can_be_imported(configs, name):
    assert_components_exist(configs[name])


@pytest.mark.parametrize("name", NAMES)
def test_expressions_are_short_and_need_nothing_but_installed_packages(configs, name):
    text = json.dumps(configs[name], indent=1)
    assert "scripts" not in text
    assert [line for line in text.splitlines() if len(line) > 120] == []


@pytest.mark.filterwarnings("ignore:The metaschema specified:DeprecationWarning")  # of old jsonschema
def test_the_metadata_follow_the_schema(root):
    verify_schema(root, "esp_medsam")


@pytest.mark.parametrize("n", [1, 3])
def test_the_network_takes_and_gives_what_the_metadata_say(bundle, n):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
        device="cpu",
        n=n,
    )


def test_channels_are_the_rows_of_the_target_table(pred):
    assert pred["channels"] == [f"{t.modality}/{t.name}" for t in TARGETS]
    assert pred["num_channels"] == len(TARGETS)


def test_mask_values_are_those_of_the_target_table(configs, pred):
    named = {"0": "background", **{str(t.value): t.name for t in TARGETS}}
    assert pred["channel_def"] == named
    assert (
        configs["metadata"]["network_data_format"]["post_processed_outputs"]["pred"]["channel_def"] == named
    )


def test_versions_are_those_that_are_tested(root, configs):
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;#]+)", (root / "constraints.txt").read_text(), re.MULTILINE))
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    metadata = configs["metadata"]
    assert metadata["required_packages_version"].pop("monai-effsam") == __version__
    core = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    named = {**metadata["required_packages_version"], **core, "numpy": metadata["numpy_version"]}
    assert {name: pins.get(name) for name in named} == named
    assert metadata["version"] in metadata["changelog"]


def test_every_package_that_the_project_needs_is_required(root, configs):
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=]", line)[0].lower() for line in project["dependencies"]}
    assert needed - {"torch", "monai", "numpy"} <= configs["metadata"]["required_packages_version"].keys()


@pytest.mark.parametrize("name", ["inference", "evaluate"])
def test_the_network_is_the_one_of_the_recipe(root, configs, name):
    recipe = read_recipe(root / "bundles" / "esp_medsam" / "configs" / "recipe.json")
    network = configs[name]["network_def"]
    assert {key: network[key] for key in ("encoder", "decoder")} == recipe.network_options()


def test_the_training_is_as_long_as_the_recipe_says(configs):
    fields = ("epochs", "epoch_length", "seed")
    assert {f: configs["train"][f] for f in fields} == {f: configs["recipe"][f] for f in fields}


def test_specs_come_from_the_model_and_without_one_from_the_recipe(bundle, small_bundle):
    recipe = read_recipe(bundle / "configs" / "recipe.json")
    assert bundle_specs(bundle) == recipe.specs()
    assert bundle_specs(small_bundle)["mr"].size == 64
    (small_bundle / "models").mkdir()
    (small_bundle / "models" / "model.json").write_text((bundle / "models" / "model.json").read_text())
    assert bundle_specs(small_bundle)["mr"].size == recipe.sizes["mr"]


def test_half_weights_become_whole_ones(bundle):
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    recipe = read_recipe(bundle / "configs" / "recipe.json")
    network = EspMedSam(**recipe.network_options())
    network.load_state_dict(state)
    assert {value.dtype for value in network.parameters()} == {torch.float32}


def test_the_folder_is_complete_and_has_no_scripts(root):
    folder = root / "bundles" / "esp_medsam"
    files = [
        "LICENSE",
        "docs/README.md",
        "docs/data_license.txt",
        "configs/logging.conf",
        "configs/metadata.json",
    ]
    assert [name for name in files if not (folder / name).is_file()] == []
    assert not (folder / "scripts").exists()
    assert (folder / "LICENSE").read_bytes() == (root / "LICENSE").read_bytes()
