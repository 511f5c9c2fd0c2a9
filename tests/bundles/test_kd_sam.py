# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The promptable bundle's configurations, started in this process, with tiny networks."""

import json

import cv2
import numpy as np
import pytest
import torch

from monai_effsam.checkpoints import load_model
from monai_effsam.data.io import read_image, read_label
from monai_effsam.errors import UsageError
from monai_effsam.inference import Segmenter
from monai_effsam.specs import Prompts
from monai_effsam.targets import TARGETS
from tests.bundles.checks import assert_components_exist, values_of, verify_schema

NAMES = ("distill", "finetune_decoder", "evaluate", "inference")


@pytest.fixture(scope="module")
def configs(root):
    folder = root / "bundles" / "kd_sam" / "configs"
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def words(bundle, sets, out, **more):
    return {"dataset_dir": str(sets), "output_dir": str(out), "epochs": 1, "batch": 2, "views": 1, **more}


def first_stage(workflow, bundle, sets, out, **more):
    given = {"teacher_path": str(bundle), "student_name": str(bundle / "student.json"), **more}
    flow = workflow("distill", kind=None, where=bundle, **words(bundle, sets, out, **given))
    flow.run()
    return load_model(out).network.state_dict()


def test_both_stages_make_a_model(workflow, promptable_bundle, sets, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    cache = str(tmp_path / "cache")
    one = first_stage(workflow, promptable_bundle, sets, first, cache_dir=cache)
    teacher = load_model(promptable_bundle).network.state_dict()
    decoder = [name for name in teacher if name.startswith("mask_decoder.")]
    assert all(torch.equal(one[name], teacher[name]) for name in decoder)
    assert {"mse", "perceptual"} <= rows(first / "encoder" / "losses.jsonl")[0].keys()
    given = words(promptable_bundle, sets, second, init=str(first), rate=0.01)
    workflow("finetune_decoder", kind=None, where=promptable_bundle, **given).run()
    two = load_model(second).network.state_dict()
    other = {name for name, value in two.items() if not torch.equal(value, one[name])}
    assert other
    assert all(name.startswith("mask_decoder.") for name in other)
    card = json.loads((second / "model.json").read_text())
    assert card["recipe"]["stages"] == ["decoder"]
    assert card["network"]["image_encoder"]["model"] == "mobilenetv3_small_050"


def test_one_line_leaves_the_perceptual_term_out(workflow, promptable_bundle, sets, tmp_path):
    first_stage(workflow, promptable_bundle, sets, tmp_path / "run", perceptual="$None")
    terms = rows(tmp_path / "run" / "encoder" / "losses.jsonl")[0]
    assert "perceptual" not in terms
    assert terms["loss"] == terms["mse"]
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["recipe"]["perceptual"] == "none"


def test_masks_and_saliency_are_learnt_by_option(workflow, promptable_bundle, sets, tmp_path):
    given = {"perceptual": "$None", "embedding_weight": 0.0, "logits": 0.5, "saliency": "activation"}
    first_stage(workflow, promptable_bundle, sets, tmp_path / "run", **given, saliency_weight=2.0)
    terms = rows(tmp_path / "run" / "encoder" / "losses.jsonl")[0]
    assert terms["loss"] == pytest.approx(0.5 * terms["logits"] + 2 * terms["saliency"], rel=1e-4)
    recipe = json.loads((tmp_path / "run" / "model.json").read_text())["recipe"]
    assert (recipe["embedding"], recipe["logits"], recipe["saliency"]) == (0.0, 0.5, "activation")


def test_the_losses_are_those_that_are_named(workflow, promptable_bundle, sets, tmp_path):
    loss = {"_target_": "monai_effsam.losses.EmbeddingMseLoss", "reduction": "sum"}  # over the images
    both = []
    for name, more in (("mean", {}), ("sum", {"embedding_loss": loss})):
        given = {"perceptual": "$None", "recipe#held_out": 0.0, **more}
        first_stage(workflow, promptable_bundle, sets, tmp_path / name, **given)
        both.append(rows(tmp_path / name / "encoder" / "losses.jsonl")[0]["mse"])
    assert both[1] == pytest.approx(2 * both[0], rel=1e-4)  # two pictures a batch


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ({"box": [10, 5, 40, 30]}, Prompts(box=(10, 5, 40, 30))),
        (
            {"points": [[20, 18], [3, 4]], "labels": [1, 0]},
            Prompts(points=((20, 18), (3, 4)), labels=(1, 0)),
        ),
        ({"points": [[20, 18]], "box": [10, 5, 40, 30]}, Prompts(((20, 18),), (1,), (10, 5, 40, 30))),
    ],
    ids=["box", "points", "both"],
)
def test_inference_answers_as_the_command_line_does(
    workflow, promptable_bundle, pictures, tmp_path, given, prompts
):
    out = tmp_path / "out"
    workflow(
        "inference", where=promptable_bundle, dataset_dir=str(pictures), output_dir=str(out), **given
    ).run()
    mask = cv2.imread(str(out / "disk_mask.png"), cv2.IMREAD_UNCHANGED)
    image = read_image(pictures / "disk.png")
    wanted = Segmenter.open(promptable_bundle).segment(image, prompts=prompts).mask[0]
    assert 0 < wanted.sum() < wanted.size
    assert np.array_equal(mask, wanted)


def test_a_target_gives_its_mask_value(workflow, promptable_bundle, pictures, tmp_path):
    given = {"box": [10, 5, 40, 30], "modality": "mr", "target": "liver"}
    workflow(
        "inference", where=promptable_bundle, dataset_dir=str(pictures), output_dir=str(tmp_path), **given
    ).run()
    mask = cv2.imread(str(tmp_path / "disk_mask.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(mask).tolist()) == {0, 17}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no prompt is given, expected a box or points"),
        ({"box": [10, 5, 60, 30]}, "is outside the image"),
    ],
)
def test_prompts_that_cannot_be_used_are_told(
    workflow, promptable_bundle, pictures, tmp_path, given, message
):
    flow = workflow(
        "inference", where=promptable_bundle, dataset_dir=str(pictures), output_dir=str(tmp_path), **given
    )
    with pytest.raises(RuntimeError) as failure:  # MONAI's, around ours
        flow.run()
    assert isinstance(failure.value.__cause__, UsageError)
    assert message in str(failure.value.__cause__)


def test_evaluation_prompts_with_the_box_of_each_label(workflow, promptable_bundle, sets, tmp_path):
    flow = workflow(
        "evaluate", where=promptable_bundle, dataset_dir=str(sets), output_dir=str(tmp_path), jitter=0.0
    )
    flow.run()
    report = json.loads((tmp_path / "dice.json").read_text())
    assert list(report) == ["mr/liver"]
    image = read_image(sets / "scans" / "images" / "2.png", modality="mr")
    label = read_label(sets / "scans" / "masks" / "2.png", image)[0] > 0
    columns, lines = np.flatnonzero(label.any(0)), np.flatnonzero(label.any(1))
    box = (columns[0], lines[0], columns[-1] + 1, lines[-1] + 1)
    found = Segmenter.open(promptable_bundle).segment(image, "mr", prompts=Prompts(box=box)).mask[0] > 0
    dice = 2 * (found & label).sum() / (found.sum() + label.sum())
    assert report["mr/liver"] == {"dice": pytest.approx(dice, abs=1e-4), "images": 1}


@pytest.mark.parametrize("name", NAMES)
def test_every_component_can_be_imported(configs, name):
    text = json.dumps(configs[name], indent=1)
    assert [line for line in text.splitlines() if len(line) > 120] == []
    assert len(list(values_of(configs[name], "_target_"))) > 5
    assert_components_exist(configs[name])


@pytest.mark.filterwarnings("ignore:The metaschema specified:DeprecationWarning")  # of old jsonschema
def test_the_metadata_follow_the_schema_and_the_target_table(root, configs):
    verify_schema(root, "kd_sam")
    answer = configs["metadata"]["network_data_format"]["post_processed_outputs"]["pred"]
    assert answer["channel_def"] == {"0": "background", **{str(t.value): t.name for t in TARGETS}}


def test_the_network_takes_and_gives_what_the_metadata_say(configs, promptable_bundle):
    told = configs["metadata"]["network_data_format"]
    network = load_model(promptable_bundle).network
    side = network.image_encoder.fixed_size
    given = {
        "boxes": torch.tensor([[[4.0, 4, 30, 30]] * 2]),
        "points": torch.zeros(1, 2, 3, 2),
        "labels": torch.ones(1, 2, 3, dtype=torch.int64),
    }
    assert {"image", *given} == told["inputs"].keys()
    for name, value in given.items():
        assert str(value.dtype).removeprefix("torch.") == told["inputs"][name]["dtype"]
        assert value.ndim == 1 + len(told["inputs"][name]["spatial_shape"]) + (name != "labels")
    with torch.inference_mode():
        found = network(torch.zeros(1, 3, side, side), **given)
    assert ("pred", *found._fields[1:]) == tuple(told["outputs"])  # "pred": as MONAI Label calls a mask
    assert found.mask_logits.shape[:3] == (1, 2, told["outputs"]["pred"]["num_channels"])


def test_the_folder_is_complete(root):
    folder = root / "bundles" / "kd_sam"
    files = ["docs/README.md", "docs/data_license.txt", "configs/logging.conf", "configs/metadata.json"]
    assert [name for name in files if not (folder / name).is_file()] == []
    assert not (folder / "scripts").exists()
    assert (folder / "LICENSE").read_bytes() == (root / "LICENSE").read_bytes()
