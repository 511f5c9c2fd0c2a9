# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Layouts told from keys and shapes, wrappers taken off, and networks that are known but not built refused."""

from pathlib import Path

import pytest
import torch

from monai_effsam.checkpoints.recognise import plain_state, recognise, without_unused
from monai_effsam.errors import WeightsError
from monai_effsam.networks.encoders.sam_vit import SAM_VITS
from monai_effsam.networks.nets import EspMedSam, PromptableSam

FILE = Path("some/file.pth")


def meta(shapes):
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "options", "entries", "parameters"),
    [
        ("mobile_sam", {"with_classifier": True}, 439, 10_130_092),
        ("lite_medsam", {"stem_stride": 1}, 435, 9_791_300),
    ],
)
def test_our_networks_have_the_keys_of_the_published_files(key_table, name, options, entries, parameters):
    table = key_table(name)
    with torch.device("meta"):
        network = PromptableSam({"name": "tiny_vit", **options})
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == table
    assert len(table) == entries
    statistics = ("running_mean", "running_var", "num_batches_tracked", "gaussian_matrix")
    sizes = [torch.Size(shape).numel() for key, shape in table.items() if not key.endswith(statistics)]
    assert sum(sizes) == parameters


@pytest.mark.parametrize("size", [1024, 256])
@pytest.mark.parametrize("name", SAM_VITS)
def test_vits_are_told_by_their_shapes(name, size):
    with torch.device("meta"):
        network = PromptableSam({"name": "sam_vit", "size": size, **SAM_VITS[name]})
    layout = recognise(network.state_dict(), FILE)
    assert (layout.name, layout.families, layout.size) == (name, ("sam", "medsam"), size)
    assert layout.encoder == {"name": "sam_vit", "size": size, "window": 14, **SAM_VITS[name]}


def test_a_vit_of_another_size_shows_its_options():
    options = {"size": 96, "width": 40, "depth": 3, "heads": 5, "global_blocks": (0, 2), "window": 4}
    with torch.device("meta"):
        layout = recognise(PromptableSam({"name": "sam_vit", **options}).state_dict(), FILE)
    assert layout.name == "vit"
    assert layout.encoder == {"name": "sam_vit", **options}


@pytest.mark.parametrize(
    ("name", "layout", "families", "size"),
    [
        ("mobile_sam", "tiny_vit", ("mobile_sam", "tiny_sam"), 1024),
        ("lite_medsam", "tiny_vit_256", ("lite_medsam",), 256),
    ],
)
def test_tiny_vits_are_told_by_their_stem(key_table, name, layout, families, size):
    found = recognise(meta(key_table(name)), FILE)
    assert (found.name, found.families, found.size) == (layout, families, size)


def test_our_own_model_is_told_by_its_prompter():
    with torch.device("meta"):
        network = EspMedSam({"name": "tiny_vit"})
    assert recognise(network.state_dict(), FILE).families == ("effsam",)


REFUSED = {
    "SAM-Med2D": (
        {
            "image_encoder.pos_embed": (1, 16, 16, 768),
            "image_encoder.blocks.0.Adapter.norm.weight": (768,),
        },
        "is of SAM-Med2D, expected no adapters: its encoder has one in every block",
    ),
    "EfficientSAM": (
        {"image_encoder.pos_embed": (1, 197, 192)},
        "is of EfficientSAM, expected SAM's prompt encoder",
    ),
    "EdgeSAM": (
        {
            "image_encoder.features.0.0.c.weight": (24, 3, 3, 3),
            "image_encoder.fuse_stage2.weight": (256, 192, 1, 1),
        },
        "is of EdgeSAM, expected a ViT or TinyViT: .* forbids commercial use",
    ),
    "RepViT-SAM": (
        {"image_encoder.features.0.0.c.weight": (40, 3, 3, 3)},
        "is of RepViT-SAM, expected a ViT or TinyViT: its RepViT encoder",
    ),
    "EfficientViT-SAM": (
        {"image_encoder.backbone.stages.0.op_list.0.conv.weight": (32, 3, 3, 3)},
        "is of EfficientViT-SAM, expected a ViT or TinyViT: its EfficientViT encoder",
    ),
    "another": (
        {"backbone.conv.weight": (1,), "a": (1,)},
        r"first keys are \['a', 'backbone\.conv\.weight'\], expected those of a checkpoint of SAM, MedSAM",
    ),
    "an encoder alone": (
        {"patch_embed.proj.weight": (768, 3, 16, 16), "pos_embed": (1, 64, 64, 768)},
        r"first keys are \['patch_embed.*Give the whole network's weights, not one part's",
    ),
    "an oblong ViT": (
        {"image_encoder.pos_embed": (1, 4, 8, 32), "image_encoder.blocks.0.attn.rel_pos_h": (7, 16)},
        r"positions \(4, 8, 32\) .*expected a square",
    ),
    "a ViT of nothing": (
        {"image_encoder.pos_embed": (1, 0, 0, 32)},
        r"positions \(0, 0, 32\) .*in blocks \[\]",
    ),
    "a ViT with flat positions": (
        {"image_encoder.pos_embed": (1, 4, 4, 32), "image_encoder.blocks.0.attn.rel_pos_h": (7,)},
        r"in blocks \[\] of widths \[\]",
    ),
    "a stem of one number": ({"image_encoder.patch_embed.seq.0.c.weight": ()}, "first keys are"),
    "a ViT without a block": (
        {"image_encoder.pos_embed": (1, 4, 4, 32), "image_encoder.blocks.1.attn.rel_pos_h": (7, 16)},
        r"in blocks \[1\] of widths \[16\]",
    ),
}


@pytest.mark.parametrize(("shapes", "message"), REFUSED.values(), ids=REFUSED)
def test_networks_that_are_not_built_here_are_refused_with_the_reason(shapes, message):
    with pytest.raises(WeightsError, match=message) as found:
        recognise(meta(shapes), FILE)
    text = str(found.value)
    assert text.startswith("some/file.pth: ")
    assert "\n" not in text


STATE = {"image_encoder.a": torch.zeros(1), "mask_decoder.b": torch.ones(2)}
WRAPPED = {
    "bare": STATE,
    "model": {"model": STATE, "optimizer": {"state": {}}, "epoch": 3},
    "state_dict": {"state_dict": STATE, "epoch": 3},
    "module": {f"module.{k}": v for k, v in STATE.items()},
    "both": {"model": {f"module.{k}": v for k, v in STATE.items()}, "epoch": 3},
    "compiled": {"model": {f"module._orig_mod.{k}": v for k, v in STATE.items()}},
    "compiled inside": {f"_orig_mod.module.{k}": v for k, v in STATE.items()},
}


@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_are_taken_off(content):
    found = plain_state(content, FILE)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[k], v) for k, v in STATE.items())


@pytest.mark.parametrize(
    "content",
    [
        None,
        [torch.zeros(1)],
        {},
        {"model": {}},
        {"model": STATE["image_encoder.a"], "epoch": 3},
        {"a": {"b": STATE}},
    ],
)
def test_what_holds_no_state_dict_is_refused(content):
    with pytest.raises(WeightsError, match=r"some/file\.pth: holds no plain state dict of tensors"):
        plain_state(content, FILE)


def test_only_entries_that_never_take_part_are_left_out(key_table):
    table = key_table("mobile_sam")
    cached = {"image_encoder.layers.1.blocks.0.attn.ab": (4, 49, 49), "pixel_mean": (3, 1, 1)}
    kept = without_unused(meta(table | cached))
    assert table.keys() - kept.keys() == {
        f"image_encoder.{name}.{kind}" for name in ("head", "norm_head") for kind in ("weight", "bias")
    }
    assert kept.keys() <= table.keys()
