# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Names of the ESP-MedSAM release and of MobileSAM, to ours and back."""

import pytest
import torch

from monai_effsam.checkpoints.esp_release import (
    RELEASE_MODALITIES,
    RELEASE_OPTIONS,
    encoder_from_mobile_sam,
    from_release,
    release_spec,
    to_release,
)
from monai_effsam.errors import WeightsError
from monai_effsam.networks.encoders.tiny_vit import TinyVitEncoder
from monai_effsam.networks.foreign import import_segment_anything
from monai_effsam.networks.nets.esp_medsam import EspMedSam
from monai_effsam.targets import Target

TARGETS = [Target(f"target_{m}", m, i + 1, (0, 0, 0), "", "") for i, m in enumerate(RELEASE_MODALITIES)]


def build(controllers, **options):
    encoder = {"name": "tiny_vit", "modalities": controllers, "with_classifier": True}
    return EspMedSam(encoder, TARGETS, **{**RELEASE_OPTIONS, **options})


@pytest.fixture(scope="module")
def state():
    """Weights of a network with two controllers."""
    torch.manual_seed(0)
    return build(2).state_dict()


def test_written_file_has_the_release_layout(state):
    written = to_release(state, 1)
    assert len(written) == 504
    assert sum(name.startswith("SemiTViT.") for name in written) == 382
    assert sum("med" in name for name in written) == 80
    assert written["SemiTViT.layers.1.blocks.0.attn.deep_QKV_embeddings_med"].shape == (4, 1, 32)
    assert written["SemiTViT.layers.3.blocks.1.attn.med_attention_biases"].shape == (1,)


def test_every_decoder_entry_is_one_of_segment_anythings(state):
    modeling = import_segment_anything().modeling
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    theirs = modeling.MaskDecoder(transformer_dim=256, transformer=transformer).state_dict()
    ours = {
        k.removeprefix("mask_decoder."): v
        for k, v in to_release(state, 0).items()
        if k.startswith("mask_dec")
    }
    assert len(ours) == 94
    assert {k: v.shape for k, v in ours.items()} == {k: theirs[k].shape for k in ours}


def test_files_of_two_modalities_make_one_network_again(state):
    back = from_release([to_release(state, 0), to_release(state, 1)], keep_classifier=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_single_file_may_be_given_its_index(state):
    back = from_release([to_release(state, 1)], indices=[1], keep_classifier=True)
    assert back.keys() == {name for name in state if "controllers.0." not in name}


def test_classifier_is_left_out_unless_asked_for_and_written_as_zeros(state):
    without = from_release([to_release(state, 0), to_release(state, 1)])
    assert state.keys() - without.keys() == {
        f"encoder.{n}.{p}" for n in ("head", "norm_head") for p in ("weight", "bias")
    }
    written = to_release(without, 0)
    assert len(written) == 504
    assert not written["SemiTViT.head.weight"].any()


def test_files_with_different_shared_weights_are_refused(state):
    other = {k: v + 1 if k == "mask_query.weight" else v for k, v in to_release(state, 1).items()}
    with pytest.raises(
        WeightsError, match=r"1 shared entries \['decoder.mask_query.weight'\].*network of its own"
    ):
        from_release([to_release(state, 0), other])


def test_a_foreign_entry_is_refused(state):
    with pytest.raises(WeightsError, match=r"entry 'backbone\.weight' is unknown.*ESP-MedSAM release"):
        from_release([{"backbone.weight": torch.zeros(1)}])


@pytest.mark.parametrize(
    "options", [{"decoder": {}}, {"decoder": {**RELEASE_OPTIONS["decoder"], "shared_hyper_mlp": False}}]
)
def test_a_network_of_other_arithmetic_is_not_written(options):
    with pytest.raises(WeightsError, match="RELEASE_OPTIONS"):
        to_release(build(1, **options).state_dict(), 0)


def test_a_controller_that_is_not_there_is_not_written(state):
    with pytest.raises(WeightsError, match="424 entries for modality 5, expected 504"):
        to_release(state, 5)


@pytest.mark.parametrize("prefix", ["", "image_encoder."])
@pytest.mark.parametrize("keep", [True, False])
def test_mobile_sams_encoder_loads_strictly(prefix, keep):
    theirs = {prefix + k: v for k, v in TinyVitEncoder(0, with_classifier=True).state_dict().items()}
    if prefix:
        theirs["mask_decoder.iou_token.weight"] = torch.zeros(1, 256)
    encoder = TinyVitEncoder(0, with_classifier=keep)
    encoder.load_state_dict(encoder_from_mobile_sam(theirs, keep_classifier=keep))
    assert torch.equal(encoder.neck[0].weight, theirs[f"{prefix}neck.0.weight"])


def test_another_encoder_is_refused():
    with pytest.raises(WeightsError, match="Choose a MobileSAM checkpoint"):
        encoder_from_mobile_sam({"image_encoder.pos_embed": torch.zeros(1)})


def test_legacy_normalisation_divides_by_the_mean():
    spec = release_spec()
    assert (255 / 255 - spec.mean[0]) / spec.std[0] == pytest.approx(255 / 123.675 - 1)
    assert release_spec(legacy_norm=False).std[0] == pytest.approx(58.395 / 255)
