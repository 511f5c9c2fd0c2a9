# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Model files: there and back, found in folders, and refused with one clear line when anything is wrong."""

import hashlib
import json
import pickle
import shutil

import pytest
import torch

from monai_effsam.checkpoints import load_model, load_state, save_model
from monai_effsam.errors import WeightsError
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import Target

TARGETS = (
    Target("liver", "ct", 17, (1, 2, 3), "10200004", "Liver"),
    Target("polyp", "endoscopy", 1, (4, 5, 6), "41329004", "Polyp"),
)
OPTIONS = {
    "encoder": {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2},
    "decoder": {"mlp_dim": 16, "hyper_dim": 8, "channels": [8, 8, 8]},
}
SPECS = {"ct": ImageSpec(64, resize="longest", std=(1.0, 2.0, 3.0)), "endoscopy": ImageSpec(32)}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = EspMedSam(**OPTIONS, targets=TARGETS).eval()
    net.presence_scale[0] = 1.5
    return net


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    """Tests must not change it."""
    return save_model(
        tmp_path_factory.mktemp("run") / "model.pt", network, SPECS, OPTIONS, {"terms": "research"}
    )


@pytest.fixture
def model(saved, tmp_path):
    """A copy that may be spoilt."""
    for ending in (".pt", ".json"):
        shutil.copy(saved.with_suffix(ending), tmp_path)
    return tmp_path / "model.pt"


def rewrite(model, **changes):
    """Change entries of the description; None removes one."""
    path = model.with_suffix(".json")
    card = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in card.items() if v is not None}))


def respoil(model, content):
    """Other content, with the checksum that belongs to it."""
    if isinstance(content, bytes):
        model.write_bytes(content)
    else:
        torch.save(content, model)
    rewrite(model, sha256=hashlib.sha256(model.read_bytes()).hexdigest())


def refused(model, message):
    with pytest.raises(WeightsError, match=message) as found:
        load_model(model)
    text = str(found.value)
    assert "\n" not in text
    assert str(model.parent) in text


def test_there_and_back(saved, network):
    loaded = load_model(saved)
    assert loaded.targets == TARGETS
    assert loaded.specs == SPECS
    assert loaded.card["terms"] == "research"
    assert loaded.path == saved
    assert not loaded.network.training
    assert loaded.network.presence_scale[0] == 1.5
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(image), network(image), rtol=0.02, atol=0.02)


def test_weights_are_stored_in_half_precision_and_used_in_single(saved, network):
    stored = torch.load(saved, weights_only=True)
    assert {v.dtype for v in stored.values() if v.is_floating_point()} == {torch.float16}
    own = load_model(saved).network.state_dict()
    assert {k: v.dtype for k, v in own.items()} == {k: v.dtype for k, v in network.state_dict().items()}
    assert all(torch.equal(own[k], v.to(own[k].dtype)) for k, v in stored.items())


def test_full_precision_is_exact(network, tmp_path):
    path = save_model(tmp_path / "new" / "model.pt", network, SPECS, OPTIONS, half=False)
    own = load_model(path).network.state_dict()
    assert all(torch.equal(own[k], v) for k, v in network.state_dict().items())
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.json", "model.pt"]


@pytest.mark.parametrize("inner", ["model.pt", "models/model.pt"], ids=["run", "bundle"])
def test_model_of_a_folder_is_found(saved, tmp_path, inner):
    target = tmp_path / inner
    target.parent.mkdir(exist_ok=True)
    for ending in (".pt", ".json"):
        shutil.copy(saved.with_suffix(ending), target.with_suffix(ending))
    assert load_model(str(tmp_path)).path == target


def test_a_model_whose_description_tells_no_kind_prompts_itself(model):
    rewrite(model, kind=None)
    loaded = load_model(model)
    assert isinstance(loaded.network, EspMedSam)
    assert not loaded.promptable


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"no model here, expected a model\.pt, or a run or bundle"):
        load_model(tmp_path)


def test_exchanged_weights_are_refused(model):
    with model.open("ab") as file:
        file.write(b"0")
    refused(model, r"model\.pt: sha256 is .*damaged or was exchanged\. Restore it")


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_cut_off_weights_are_refused(model, size):
    respoil(model, model.read_bytes()[:size])
    refused(model, "damaged or not a PyTorch file|plain state dict")


class Harmful:
    ran = False

    def __reduce__(self):
        return setattr, (Harmful, "ran", True)


@pytest.mark.parametrize(
    "write", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))], ids=["torch", "pickle"]
)
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(model, write):
    write({"weight": Harmful()}, model)
    rewrite(model, sha256=None)
    refused(model, "was refused, since it could run code")
    assert not Harmful.ran


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"model": {"weight": torch.zeros(1)}, "epoch": 3}])
def test_a_file_that_is_no_state_dict_is_refused(model, content):
    respoil(model, content)
    refused(model, "no plain state dict of tensors. Export")


def test_missing_extra_and_reshaped_entries_are_counted_and_named(model, network):
    state = network.state_dict()
    state["extra"] = torch.zeros(1)
    state["presence_shift"] = torch.zeros(5)
    del state["decoder.mask_query.weight"], state["presence_scale"]
    respoil(model, state)
    refused(
        model,
        r"EspMedSam: 2 missing \['decoder\.mask_query\.weight', 'presence_scale'\], 1 unexpected \['extra'\], "
        r"1 of other shape \['presence_shift'\]\. Use the model\.json they came with",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"specs": None}, "lacks specs, expected the description of a model"),
        ({"kind": "magic"}, "kind is 'magic', expected self_prompting or promptable. Update the package"),
        ({"kind": "promptable"}, "describes no network of this package.*encoder"),
        ({"format": 99}, "format is 99, expected at most 1. Update the package"),
        ({"format": "1"}, "format is 1"),
        ({"network": {"encoder": {"name": "tiny_bit"}}}, "Did you mean 'tiny_vit'"),
        ({"network": {"encoder": {"name": "timm", "model": "no_such_net"}}}, "describes no network"),
        ({"network": {**OPTIONS, "depth": 3}}, "describes no network of this package.*depth"),
        ({"targets": []}, "describes no network"),
        ({"targets": [{"name": "liver"}]}, "describes no network"),
        ({"specs": {"ct": {"size": 64}}}, "ImageSpec of endoscopy is missing"),
        (
            {"specs": {"ct": {"size": 48}, "endoscopy": {"size": 64}}},
            "ImageSpec of ct has size 48.*multiple of 32",
        ),
        ({"specs": {"ct": {"size": 64, "colour": 1}}}, r"unknown keys \['colour'\]"),
        ({"specs": {"ct": {}}}, "describes no network.*size"),
    ],
)
def test_a_wrong_description_is_refused(model, changes, message):
    rewrite(model, **changes)
    refused(model, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read .*belongs beside model.pt"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "lacks"),
    ],
)
def test_a_description_that_is_none_is_refused(model, content, message):
    path = model.with_suffix(".json")
    path.unlink() if content is None else path.write_bytes(content)
    refused(model, message)


def test_checksum_is_checked_only_where_there_is_one(saved, tmp_path):
    assert load_state(saved).keys() == load_state(saved, None).keys()
    with pytest.raises(WeightsError, match="cannot be read"):
        load_state(tmp_path / "none.pt")
