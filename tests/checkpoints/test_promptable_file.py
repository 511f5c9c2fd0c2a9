# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Promptable models of this package as files: there and back, one door with SAM's, refused where they do not fit."""

import hashlib
import json
import logging
import shutil

import pytest
import torch

from monai_effsam.checkpoints import load_checkpoint, load_model, save_model
from monai_effsam.errors import SpecError, WeightsError
from monai_effsam.networks.nets import PromptableSam
from monai_effsam.specs import ImageSpec, spec_of
from monai_effsam.targets import TARGETS, Target

SPECS = {"": ImageSpec(64, "longest", mask_rule="frame"), "ct": ImageSpec(64, intensity="tissue")}


@pytest.fixture
def model(tiny_promptable, tmp_path):
    """A copy that may be spoilt."""
    for ending in (".pt", ".json"):
        shutil.copy(tiny_promptable.with_suffix(ending), tmp_path)
    return tmp_path / "model.pt"


def rewrite(model, **changes):
    path = model.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_there_and_back(tiny_promptable):
    loaded = load_model(tiny_promptable)
    assert loaded.promptable
    assert isinstance(loaded.network, PromptableSam)
    assert not loaded.network.training
    assert loaded.specs == SPECS
    assert loaded.targets == TARGETS
    assert json.loads(tiny_promptable.with_suffix(".json").read_text())["kind"] == "promptable"
    stored = torch.load(tiny_promptable, weights_only=True)
    own = loaded.network.state_dict()
    assert own.keys() == stored.keys()
    assert all(torch.equal(own[key], value.to(own[key].dtype)) for key, value in stored.items())


def test_targets_and_frame_of_prompts_are_those_that_were_given(tmp_path):
    targets = (Target("stone", "ultrasound", 9, (1, 2, 3), "1", "Stone"),)
    options = {"image_encoder": {"name": "tiny_vit"}, "prompt_size": 256}
    specs = {"": ImageSpec(64, prompt_size=256)}
    path = save_model(tmp_path / "model.pt", PromptableSam(**options), specs, options, targets=targets)
    loaded = load_model(path)
    assert loaded.targets == targets
    assert loaded.network.prompt_size == 256


def test_one_door_knows_it_by_its_description(tiny_promptable, caplog):
    """Its keys are those of a ViT of SAM's, which would be taken for SAM."""
    digest = hashlib.sha256(tiny_promptable.read_bytes()).hexdigest()
    with caplog.at_level(logging.WARNING):
        loaded = load_checkpoint(tiny_promptable.parent, sha256=digest)
    assert caplog.records == []
    assert (loaded.family, loaded.layout, loaded.sha256) == ("effsam", "promptable_sam", digest)
    assert loaded.specs == SPECS
    assert loaded.spec == SPECS[""]
    assert loaded.own is not None
    assert loaded.own.network is loaded.network
    with pytest.raises(WeightsError, match=r"sha256 is .*expected 000000000000"):
        load_checkpoint(tiny_promptable, sha256="0" * 64)
    with pytest.raises(
        WeightsError, match=r"a model of this package, expected a checkpoint of SAM\. Give no family"
    ):
        load_checkpoint(tiny_promptable, family="sam")
    with pytest.raises(WeightsError, match=r"has specs in its model\.json"):
        load_checkpoint(tiny_promptable, spec=SPECS[""])


def test_a_note_beside_the_weights_of_others_describes_no_model(model, caplog):
    model.with_suffix(".json").write_text('{"from": "a friend"}')
    assert load_checkpoint(model, family="sam").family == "sam"


def test_a_spoilt_description_is_not_passed_over(model):
    model.with_suffix(".json").write_text('{"format": 1,')
    with pytest.raises(WeightsError, match="is not JSON"):
        load_checkpoint(model)


def test_a_file_is_read_once(tiny_promptable, monkeypatch):
    calls = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: calls.append(args) or load(*args, **options))
    load_checkpoint(tiny_promptable)
    assert len(calls) == 1


def test_exchanged_weights_are_refused_by_either_door(model):
    with model.open("ab") as file:
        file.write(b"0")
    for door in (load_model, load_checkpoint):
        with pytest.raises(WeightsError, match="damaged or was exchanged"):
            door(model)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({"ct": {"size": 64}}, "ImageSpec of any modality is missing, expected one"),
        (
            {"": {"size": 64}, "ct": {"size": 128}},
            "ImageSpec of ct has size 128 and stride 16, expected size 64",
        ),
        (
            {"": {"size": 64, "stride": 4}},
            "of any modality has size 64 and stride 4, expected size 64 and stride 16",
        ),
        (
            {"": {"size": 64, "prompt_size": 128}},
            "any modality has prompt_size 128, expected 64, the network's",
        ),
    ],
)
def test_specs_that_the_network_cannot_take_are_refused(model, specs, message):
    rewrite(model, specs=specs)
    with pytest.raises(WeightsError, match=message) as found:
        load_model(model)
    assert str(model.with_suffix(".json")) in str(found.value)


def test_a_modality_that_is_not_named_takes_the_spec_of_any():
    assert spec_of(SPECS, "ct") == SPECS["ct"]
    assert spec_of(SPECS, "mr") == spec_of(SPECS) == SPECS[""]
    with pytest.raises(SpecError, match="none for modality 'mr', expected one of ct"):
        spec_of({"ct": SPECS["ct"]}, "mr")
