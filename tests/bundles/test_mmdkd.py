# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Both stages of ESP-MedSAM's distillation as configurations of its bundle, with tiny networks."""

import json

import pytest
import torch

from monai_effsam.checkpoints import load_model
from monai_effsam.engines.build import build_network
from monai_effsam.engines.recipe import read_recipe
from monai_effsam.errors import UsageError

CONTROLLERS = (".experts.", ".controllers.", "attention.token")


def given(small_bundle, sets, teacher, out):
    """Words that every stage is given."""
    return {
        "dataset_dir": str(sets),
        "student": str(small_bundle / "configs" / "recipe.json"),
        "teacher_path": str(teacher),
        "output_dir": str(out),
        "epochs": 1,
        "epoch_length": 2,
    }


def changed(before, after):
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def test_the_medical_teacher_trains_its_medical_parts_and_no_weight_of_sam_s(
    medical_teacher, general_teacher
):
    sam, medical = (load_model(path).network.state_dict() for path in (general_teacher, medical_teacher))
    plain = {name: value for name, value in sam.items() if name.startswith("image_encoder.")}
    assert len(plain) > 20
    assert all(torch.equal(medical[name.removeprefix("image_")], value) for name, value in plain.items())
    values = [value for name, value in medical.items() if name.endswith("value_token")]  # they start at 0
    assert all(value.any() for value in values)
    assert len(values) == 2


def test_two_stages_by_two_teachers(workflow, small_bundle, sets, medical_teacher, general_teacher, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    words = given(small_bundle, sets, general_teacher, first)
    workflow("distill_aggregator", kind="train", where=small_bundle, **words).run()
    cache = str(tmp_path / "cache")
    words = {**given(small_bundle, sets, medical_teacher, second), "init": str(first), "cache_dir": cache}
    workflow("distill_controllers", kind="train", where=small_bundle, **words).run()
    one, two = (load_model(folder).network.state_dict() for folder in (first, second))
    encoder = {name for name in changed(one, two) if name.startswith("encoder.")}
    assert encoder
    assert all(any(part in name for part in CONTROLLERS) for name in encoder)
    teacher = load_model(medical_teacher).network.state_dict()
    assert torch.equal(two["decoder.mask_query.weight"], teacher["decoder.mask_query.weight"])
    card = json.loads((second / "model.json").read_text())
    assert card["recipe"]["part"] == "controllers"
    assert card["recipe"]["teacher"] == json.loads((medical_teacher / "model.json").read_text())["sha256"]
    assert (tmp_path / "cache" / "data.mdb").is_file()


def test_another_encoder_is_one_line(workflow, small_bundle, sets, general_teacher, tmp_path):
    encoder = {"name": "timm", "model": "mobilenetv2_035", "embed_channels": 32}
    words = {
        **given(small_bundle, sets, general_teacher, tmp_path / "run"),
        "encoder": encoder,
        "epoch_length": 1,
    }
    workflow("distill_aggregator", kind="train", where=small_bundle, **words).run()
    assert json.loads((tmp_path / "run" / "model.json").read_text())["network"]["encoder"] == encoder


def test_a_run_is_not_continued_with_another_teacher(
    workflow, small_bundle, sets, medical_teacher, general_teacher, tmp_path
):
    words = {**given(small_bundle, sets, general_teacher, tmp_path / "run"), "epoch_length": 1}
    workflow("distill_aggregator", kind="train", where=small_bundle, **words).run()
    words |= {"teacher_path": str(medical_teacher), "resume": True}
    with pytest.raises(RuntimeError) as failure:  # MONAI's, around ours
        workflow("distill_aggregator", kind="train", where=small_bundle, **words).run()
    assert isinstance(failure.value.__cause__, UsageError)
    assert "made with another recipe" in str(failure.value.__cause__)


@pytest.mark.parametrize("name", ["recipe_tiny_vit", "recipe_medical_teacher", "recipe_mobilenetv2"])
def test_the_recipes_build(root, name):
    recipe = read_recipe(root / "bundles" / "esp_medsam" / "configs" / f"{name}.json")
    with torch.device("meta"):
        network = build_network(recipe)
    for spec in recipe.specs().values():
        assert spec.size % network.encoder.size_divisor == 0
        assert network.encoder.fixed_size in (None, spec.size)
    trained = [n for n, p in network.encoder.named_parameters() if p.requires_grad]
    if name == "recipe_medical_teacher":
        assert all(".medical." in n for n in trained)
