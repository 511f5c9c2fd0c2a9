# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One door for checkpoints: what it recognises, what it hands out, and one clear line for everything else."""

import hashlib
import logging
import pickle
from dataclasses import replace

import pytest
import torch

from monai_effsam.checkpoints import FAMILIES, families, load_checkpoint, save_model
from monai_effsam.errors import UnknownNameError, UsageError, WeightsError
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import TARGETS

OWN = {"encoder": {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2}}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def sam(make_sam):
    """segment-anything's own network, small."""
    return make_sam(size=64)


@pytest.fixture(scope="module")
def sam_file(sam, folder):
    """Tests must not change it."""
    torch.save(sam.state_dict(), folder / "sam.pth")
    return folder / "sam.pth"


@pytest.fixture(scope="module")
def tiny_file(folder, key_table):
    """A function: family -> file of its key table, filled at random; tests must not change it."""
    generator = torch.Generator().manual_seed(0)

    def value(key, shape):
        if key.endswith("num_batches_tracked"):
            return torch.tensor(7)
        noise = torch.randn(shape, generator=generator)
        return 0.5 + noise.abs() if key.endswith("running_var") else noise * 0.1

    def write(name):
        path = folder / f"{name}.pt"
        if not path.exists():
            torch.save({k: value(k, s) for k, s in key_table(name).items()}, path)
        return path

    return write


@pytest.fixture(scope="module")
def own_file(folder):
    """A model of this package."""
    torch.manual_seed(0)
    network = EspMedSam(**OWN)
    specs = {name: ImageSpec(64) for name in network.modalities}
    return save_model(folder / "own" / "model.pt", network, specs, OWN)


def refused(path, message, error=WeightsError, **options):
    with pytest.raises(error, match=message) as found:
        load_checkpoint(path, **options)
    text = str(found.value)
    assert "\n" not in text
    return text


def test_a_vit_loads_with_sams_spec_and_equal_outputs(sam, sam_file):
    loaded = load_checkpoint(sam_file, family="sam", sha256=sha256(sam_file).upper())
    assert loaded.spec == replace(FAMILIES["sam"].spec, size=64)
    assert (loaded.family, loaded.layout, loaded.doubts) == ("sam", "vit", ())
    assert loaded.licence.startswith("Apache-2.0")
    assert loaded.sha256 == sha256(sam_file)
    assert loaded.path == sam_file
    assert not loaded.network.training
    assert loaded.own is None
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network.encode(image).embedding, sam.image_encoder(image))


def test_medsam_has_sams_keys_and_its_own_spec(sam_file):
    loaded = load_checkpoint(str(sam_file), family="medsam")
    assert loaded.spec == replace(FAMILIES["medsam"].spec, size=64)
    assert loaded.spec.intensity == "minmax"
    assert (loaded.family, loaded.doubts) == ("medsam", ())


def test_a_vit_of_unknown_origin_is_taken_for_sam_and_that_is_said(sam_file, caplog):
    with caplog.at_level(logging.WARNING):
        loaded = load_checkpoint(sam_file)
    assert (loaded.family, loaded.doubts) == ("sam", ("medsam",))
    note = "taken for SAM, but MedSAM has the same keys and wants other pixels. Name the family to be sure."
    assert [r.getMessage() for r in caplog.records] == [f"{sam_file}: {note}"]


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_published_file_needs_no_family_and_admits_no_other(sam_file, monkeypatch, caplog, algorithm):
    known = {hashlib.new(algorithm, sam_file.read_bytes()).hexdigest(): "sam"}
    monkeypatch.setattr(families, "_PUBLISHED", known)
    loaded = load_checkpoint(sam_file)
    assert (loaded.family, loaded.doubts, caplog.records) == ("sam", (), [])
    refused(
        sam_file, r"is the published file of SAM, expected MedSAM's\. Give the family sam", family="medsam"
    )


@pytest.mark.parametrize(
    ("name", "family", "layout", "entries"),
    [
        ("mobile_sam", "mobile_sam", "tiny_vit", 435),
        ("mobile_sam", "tiny_sam", "tiny_vit", 435),
        ("lite_medsam", "lite_medsam", "tiny_vit_256", 435),
    ],
)
def test_tiny_vits_load_strictly_but_for_the_unused_classifier(tiny_file, name, family, layout, entries):
    path = tiny_file(name)
    loaded = load_checkpoint(path, family=family)
    assert (loaded.family, loaded.layout, loaded.spec) == (family, layout, FAMILIES[family].spec)
    own, stored = loaded.network.state_dict(), torch.load(path, weights_only=True)
    assert len(own) == entries
    assert all(torch.equal(value, stored[key]) for key, value in own.items())
    assert all(key.split(".")[1] in ("norm_head", "head") for key in stored.keys() - own.keys())


def test_families_of_one_input_raise_no_doubt(tiny_file, caplog):
    loaded = load_checkpoint(tiny_file("mobile_sam"))
    assert (loaded.family, loaded.doubts, caplog.records) == ("mobile_sam", (), [])


def test_attention_biases_are_those_of_the_file(tiny_file):
    """Copies of TinyViT cache them in eval(), so that weights loaded afterwards do not count."""
    loaded = load_checkpoint(tiny_file("lite_medsam")).network
    fresh = PromptableSam({"name": "tiny_vit", "stem_stride": 1})
    fresh.load_state_dict(torch.load(tiny_file("lite_medsam"), weights_only=True), strict=True)
    stale = PromptableSam({"name": "tiny_vit", "stem_stride": 1}).eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = stale.encode(image).embedding
        stale.load_state_dict(loaded.state_dict())
        expected = fresh.eval().encode(image).embedding
        assert torch.equal(loaded.encode(image).embedding, expected)
        assert torch.equal(stale.encode(image).embedding, expected)
    assert not torch.allclose(before, expected)


def test_our_own_model_keeps_its_specs(own_file):
    for path in (own_file, own_file.parent):
        loaded = load_checkpoint(path)
        assert isinstance(loaded.network, EspMedSam)
        assert loaded.specs.keys() == set(loaded.network.modalities)
        assert (loaded.family, loaded.spec, loaded.path) == ("effsam", ImageSpec(64), own_file)
        assert loaded.sha256 == sha256(own_file)
        assert loaded.own is not None
        assert (loaded.own.network, loaded.own.targets) == (loaded.network, TARGETS)


def test_half_precision_wrappers_and_a_prefix_are_taken_off(sam, folder):
    state = {f"module.{k}": v.half() for k, v in sam.state_dict().items()}
    torch.save({"model": state, "optimizer": {"lr": 1e-4}, "epoch": 3}, folder / "training.pth")
    network = load_checkpoint(folder / "training.pth", family="medsam").network
    assert {v.dtype for v in network.state_dict().values()} == {torch.float32}


def test_a_spec_of_ones_own_takes_the_familys_place(sam_file, caplog):
    spec = replace(FAMILIES["medsam"].spec, size=64, prompt_size=128)
    loaded = load_checkpoint(sam_file, spec=spec)
    assert (loaded.spec, caplog.records) == (spec, [])
    assert loaded.network.prompt_frame(4, 4) == (128, 128)


# Refusals


def test_another_checksum_is_refused(sam_file):
    refused(
        sam_file, r"sha256 is .*\.\.\., expected 000000000000\.\.\.; the file is damaged", sha256="0" * 64
    )


def test_half_a_checksum_is_refused(sam_file):
    refused(sam_file, "expected 64 hexadecimal digits", UsageError, sha256="01ec64")


def test_a_family_that_does_not_exist_is_refused(sam_file):
    refused(sam_file, "Did you mean 'medsam'", UnknownNameError, family="med_sam")


def test_a_family_of_other_keys_is_refused(sam_file, tiny_file, own_file):
    refused(sam_file, "has the keys of SAM or MedSAM, expected those of LiteMedSAM", family="lite_medsam")
    refused(
        tiny_file("mobile_sam"),
        r"has the keys of MobileSAM or TinySAM, expected those of LiteMedSAM\. Give the family mobile_sam or tiny_sam",
        family="lite_medsam",
    )
    refused(sam_file, "expected those of a model of this package", family="effsam")
    refused(own_file, r"a model of this package, expected a checkpoint of SAM\. Give no family", family="sam")


def test_a_spec_that_does_not_fit_is_refused(sam_file, tiny_file, own_file):
    refused(
        sam_file,
        r"ImageSpec has size 1024 and stride 16, expected size 64 and stride 16\. Use the spec that",
        spec=FAMILIES["sam"].spec,
    )
    refused(
        tiny_file("lite_medsam"),
        r"size 1024 and stride 16, expected size a multiple of 8 and stride 4",
        spec=FAMILIES["sam"].spec,
    )
    refused(own_file, "has specs in its model.json, expected none", spec=ImageSpec(64))


def test_missing_extra_and_reshaped_entries_are_named_with_the_file(sam, folder):
    state = sam.state_dict()
    state["mask_decoder.hf_token.weight"] = torch.zeros(1, 256)
    state["mask_decoder.iou_token.weight"] = torch.zeros(2, 256)
    del state["image_encoder.neck.0.weight"], state["prompt_encoder.no_mask_embed.weight"]
    torch.save(state, folder / "other.pth")
    text = refused(
        folder / "other.pth",
        r"weights do not fit PromptableSam: 2 missing \['image_encoder\.neck\.0\.weight', .*no_mask_embed.*\], "
        r"1 unexpected \['mask_decoder\.hf_token\.weight'\], 1 of other shape \['mask_decoder\.iou_token\.weight'\]",
        family="sam",
    )
    assert str(folder / "other.pth") in text


def test_half_a_tiny_vit_is_refused(tiny_file, folder):
    state = torch.load(tiny_file("mobile_sam"), weights_only=True)
    torch.save({k: v for k, v in state.items() if ".layers.3." not in k}, folder / "half.pt")
    refused(folder / "half.pt", r"missing \['image_encoder\.layers\.3\.blocks\.0")


class Harmful:
    ran = False

    def __reduce__(self):
        return setattr, (Harmful, "ran", True)


@pytest.mark.parametrize(
    "write", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))], ids=["torch", "pickle"]
)
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(sam, tmp_path, write):
    write({"model": sam.state_dict(), "epoch": Harmful()}, tmp_path / "bad.pth")
    refused(tmp_path / "bad.pth", "was refused, since it could run code")
    assert not Harmful.ran


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no model here"),
        (b"", "damaged or not a PyTorch file"),
        (b"PK\x03\x04 and no more", "damaged or not a PyTorch file|plain state dict"),
        (b"GIF89a", "damaged or not a PyTorch file|plain state dict"),
    ],
    ids=["missing", "empty", "cut off", "a picture"],
)
def test_files_that_are_no_weights_are_refused(tmp_path, content, message):
    path = tmp_path / "a.pth"
    if content is not None:
        path.write_bytes(content)
    refused(path, message)
