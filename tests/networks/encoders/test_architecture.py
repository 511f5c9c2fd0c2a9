# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Architectures as data: identity, JSON, and what is refused; and the networks that they describe."""

import dataclasses
import json

import pytest
import torch

from monai_effsam.errors import SpecError, UnknownNameError
from monai_effsam.networks.encoders import Architecture, DecoderShape, NeckShape, SearchedEncoder, StageShape
from monai_effsam.networks.nets import EspMedSam, PromptableSam

SMALL = Architecture(
    (StageShape(4, 16), StageShape(8, 32, ("dwsep_k5",)), StageShape(16, 64, ("mbconv_k3_e2",))), stride=16
)


def changed(**values):
    """JSON of SMALL with other entries."""
    return {**SMALL.to_json(), **values}


def test_the_id_never_changes():
    assert SMALL.id == "e89fc304e1fd"
    assert dataclasses.replace(SMALL, stride=8).id != SMALL.id


def test_json_is_a_round_trip():
    text = json.dumps(SMALL.to_json())
    assert Architecture.from_json(json.loads(text)) == SMALL
    assert Architecture.from_json(json.loads(text)).id == SMALL.id


def test_key_order_and_defaults_do_not_matter():
    values = dict(reversed(SMALL.to_json().items()))
    del values["neck"], values["format"]
    assert Architecture.from_json(values).id == SMALL.id


def test_skips_are_left_out():
    stage = StageShape(8, 32, ("skip", "dwsep_k5", "skip"))
    assert stage == SMALL.stages[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (changed(depth=3), "the whole has unknown keys depth"),
        (changed(neck={"width": 64, "norm": 1}), "neck has unknown keys norm, expected some of width, kind"),
        (changed(stages=[{"stride": 4, "width": 16, "op": []}]), "stage 0 has unknown keys op"),
        (changed(stages=[{"stride": 4}]), "stage 0 is incomplete"),
        (changed(stages=[3]), "stage 0 is a int, expected an object"),
        (changed(stages="x"), "stages are no list"),
        (changed(format=2), "format is 2, expected at most 1. Update the package"),
        (changed(stride=32), r"stride is 32, expected that of a stage, one of \[4, 8, 16\]"),
        (changed(size=250), "size is 250, expected a positive multiple of 32"),
        (changed(neck={"width": 60}), "width of the neck is 60, expected a positive multiple of 16"),
        (changed(decoder={"depth": 0}), "depth of the decoder is 0, expected at least 1"),
        (changed(stages=[{"stride": 16, "width": 16}]), r"strides of the stages are \[16\], expected 4 or 8"),
        (
            changed(stages=[{"stride": 4, "width": 16}, {"stride": 16, "width": 16}]),
            r"strides of the stages are \[4, 16\]",
        ),
        (
            changed(stages=[{"stride": 4, "width": "16"}]),
            "width of the stage at stride 4 is 16, expected a p",
        ),
        (changed(trunk="inverted"), r"entry of the stage at stride 4 is conv, expected an inverted residual"),
        (
            changed(stages=[{"stride": 4, "width": 16, "entry": "mbconv_k3_e6"}], stride=4),
            "entry of the stage at stride 4 is mbconv_k3_e6, expected conv in a trunk of the kind plain",
        ),
        (
            changed(stages=[{"stride": 8, "width": 16, "entry": "mbconv_k3_e6"}], stride=8, trunk="inverted"),
            r"strides of the stages are \[8\], expected 4 and as much or twice as much",
        ),
        (
            changed(stages=[{"stride": 8, "width": 16}, {"stride": 8, "width": 32}]),
            r"strides of the stages are \[8, 8\], expected 4 or 8 and twice",
        ),
        (
            changed(stages=[{"stride": 4, "width": 20}]),
            "width of the stage at stride 4 is 20, expected a positive multiple of 8",
        ),
        (
            changed(stages=[{"stride": 4, "width": 24, "ops": ["dwsep_k3", "grouped_k3"]}]),
            "for grouped_k3, is 24, expected a positive multiple of 16",
        ),
        ([], "is a list, expected an object of JSON"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_built_is_refused(values, message):
    with pytest.raises(SpecError, match=message):
        Architecture.from_json(values)


@pytest.mark.parametrize("op", ["dwsep_k9", "global_attention"])
def test_unknown_and_reference_operations_are_refused(op):
    stages = [{"stride": 8, "width": 16, "ops": [op]}]
    with pytest.raises(UnknownNameError, match=f"stage at stride 8: operation '{op}' is unknown"):
        Architecture.from_json(changed(stages=stages, stride=8))


def test_unknown_trunks_and_entries_are_refused():
    with pytest.raises(UnknownNameError, match="trunk 'inverse' is unknown"):
        Architecture.from_json(changed(trunk="inverse"))
    stages = [{"stride": 8, "width": 16, "entry": "dwsep_k3"}]
    with pytest.raises(UnknownNameError, match="stage at stride 8: entry 'dwsep_k3' is unknown"):
        Architecture.from_json(changed(stages=stages, stride=8))


INVERTED = Architecture(
    (
        StageShape(4, 24, ("mbconv_k3_e2",), "mbconv_k3_e2"),
        StageShape(8, 40, (), "mbconv_k5_e2"),
        StageShape(16, 48, (), "mbconv_k3_e2"),
        StageShape(16, 56, ("dwsep_k3",), "mbconv_k3_e2"),
    ),
    stride=8,
    size=64,
    trunk="inverted",
)


def test_inverted_trunks_come_back_from_json_and_have_no_plain_ones_id():
    values = json.loads(json.dumps(INVERTED.to_json()))
    assert Architecture.from_json(values) == INVERTED
    assert dataclasses.replace(INVERTED, trunk="inverted_same").id != INVERTED.id
    assert {"trunk", "entry"}.isdisjoint({*SMALL.to_json(), *SMALL.to_json()["stages"][0]})
    assert INVERTED.levels == {8: 40, 16: 56}


@pytest.mark.parametrize("trunk", ["inverted", "inverted_same"])
def test_inverted_trunks_serve_both_models(trunk):
    one = dataclasses.replace(INVERTED, trunk=trunk)
    image, boxes = torch.zeros(1, 3, 64, 96), torch.tensor([[[3.0, 4.0, 20.0, 30.0]]])
    with torch.no_grad():
        net = PromptableSam(**one.promptable()).eval()
        assert net(image, boxes=boxes).mask_logits.shape == (1, 1, 1, 32, 48)
        encoder = SearchedEncoder(architecture=one, skips=(4, 2)).eval()
        found = encoder(image, None)
    assert [x.shape for x in found.skips] == [(1, 24, 16, 24), (1, 16, 32, 48)]
    acts = {type(m) for stage in encoder.stages for m in stage.modules() if "ReLU" in type(m).__name__}
    assert acts == {torch.nn.ReLU6}


def test_unknown_neck_is_refused():
    with pytest.raises(UnknownNameError, match="neck 'thick' is unknown, expected one of dense, separable"):
        NeckShape(kind="thick")


@pytest.mark.parametrize("kind", ["separable", "dense"])
@pytest.mark.parametrize("stride", [4, 8, 16])
def test_a_promptable_model_takes_its_decoder(stride, kind):
    one = dataclasses.replace(
        SMALL, stride=stride, neck=NeckShape(32, kind), decoder=DecoderShape(width=64, depth=1, mlp_dim=128)
    )
    net = PromptableSam(**one.promptable()).eval()
    with torch.no_grad():
        found = net(torch.zeros(1, 3, 64, 96), boxes=torch.tensor([[[3.0, 4.0, 20.0, 30.0]]]))
    assert found.mask_logits.shape == (1, 1, 1, 256 // stride, 384 // stride)
    assert len(net.mask_decoder.transformer.layers) == 1
    assert net.mask_decoder.transformer.layers[0].mlp.lin1.weight.shape == (128, 64)


def test_a_self_prompting_model_takes_its_decoder_and_its_skips():
    one = dataclasses.replace(SMALL, decoder=DecoderShape(width=64, depth=1, mlp_dim=128))
    net = EspMedSam(**one.self_prompting()).eval()
    assert net.encoder.skip_channels == (32, 16, 16)
    assert len(net.decoder.transformer.layers) == 1
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 64)).shape[-2:] == (64, 64)


def test_folding_leaves_the_function():
    torch.manual_seed(0)
    plain = SearchedEncoder(architecture=SMALL).eval()
    image = torch.randn(1, 3, 64, 64)
    for norm in (m for m in plain.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2)
    from monai_effsam.networks.encoders import fold_batch_norm

    with torch.no_grad():
        expected = plain(image, None).embedding
        torch.testing.assert_close(
            fold_batch_norm(plain)(image, None).embedding, expected, rtol=1e-3, atol=1e-4
        )
    folded = SearchedEncoder(architecture=SMALL.to_json(), fold=True)
    folded.load_state_dict(plain.state_dict())


def test_norms_are_held_where_asked():
    encoder = SearchedEncoder(architecture=SMALL, train_norms=False).train()
    before = {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}
    encoder(torch.randn(2, 3, 64, 64), None)
    assert all(torch.equal(encoder.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize("skips", [(16,), (4, 8), (3,), (8, 8)])
def test_skips_that_are_no_finer_maps_are_refused(skips):
    with pytest.raises(SpecError, match=r"expected some of \[8, 4, 2\], coarse to fine"):
        SearchedEncoder(architecture=SMALL, skips=skips)
