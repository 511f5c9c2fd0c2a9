# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""MMDKD: each stage trains its part and nothing else, and learns; what is taken of the teacher's decoder."""

import json
import logging

import pytest
import torch

from monai_effsam.checkpoints import load_model
from monai_effsam.data.sets import read_sets
from monai_effsam.data.training_slices import TrainingSlices
from monai_effsam.engines.mmdkd import (
    MmdkdStep,
    adopt_decoder,
    build_mmdkd_student,
    build_view_loader,
    read_mmdkd_recipe,
)
from monai_effsam.engines.run_keeper import RunKeeper
from monai_effsam.engines.teacher import Teacher, state_sha256
from monai_effsam.engines.training_run import build_trainer, finish_run
from monai_effsam.errors import SpecError, UnknownNameError, UsageError, WeightsError
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import TARGETS

TABLE = tuple(t for t in TARGETS if t.name in ("polyp", "breast_lesion"))
MEDICAL = {"name": "sam_vit", "size": 64, "width": 32, "depth": 2, "heads": 2, "global_blocks": [1]}
DECODER = {"mlp_dim": 32, "hyper_dim": 16, "channels": [16, 8, 8]}
OWN = (".experts.", ".controllers.", "attention.token")


@pytest.fixture(scope="module")
def teacher(scatter):
    """A self-prompting network over a medical ViT."""
    torch.manual_seed(0)
    encoder = {**MEDICAL, "medical_tokens": 2, "embed_channels": 32}
    network = scatter(EspMedSam(encoder, TABLE, decoder=DECODER))
    specs = {m: ImageSpec(64) for m in network.modalities}
    return Teacher(network, specs, state_sha256(network))


@pytest.fixture
def file(tmp_path, tiny_recipe):
    """A recipe whose modalities share a size, so that batches mix them."""
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**tiny_recipe, "sizes": {"endoscopy": 64, "ultrasound": 64}, "ema": 0.003}))
    return path


@pytest.fixture
def data(data_root):
    cases = read_sets(data_root, split="train")
    return lambda recipe: TrainingSlices(cases, recipe.specs(), TABLE)


def run_stage(recipe, network, dataset, teacher, out, step=None):
    """A stage as the bundle's configurations run it; gives the averaged network and the loss of each step."""
    keeper = RunKeeper(out, recipe, network)
    trainer = build_trainer(
        recipe,
        network,
        build_view_loader(recipe, dataset.slices, network.modalities, teacher),
        keeper,
        max_epochs=recipe.epochs,
        step=step or MmdkdStep(network, recipe.part),
    )
    finish_run(trainer, keeper, recipe, dataset, out / "model.pt")
    lines = (out / "losses.jsonl").read_text().splitlines()
    return keeper.average, [json.loads(line)["loss"] for line in lines]


def copied(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def changed(before, network):
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


UNFOLDED = {"name": "timm", "model": "mobilenetv3_small_050", "heads": 2, "fold": False}
"""With every BatchNorm in place."""


@pytest.mark.parametrize(
    "encoder",
    [UNFOLDED, pytest.param({"name": "tiny_vit"}, marks=pytest.mark.slow)],
    ids=["timm", "tiny_vit"],
)
def test_the_second_stage_changes_controllers_and_not_one_other_number(
    file, data, teacher, tmp_path, encoder
):
    encoder = {"embed_channels": 32, **encoder}
    recipe = read_mmdkd_recipe(file, "controllers", teacher, encoder=encoder, epochs=2, epoch_length=2)
    network = build_mmdkd_student(recipe, teacher, TABLE)
    before = copied(network)
    average, _ = run_stage(recipe, network, data(recipe), teacher, tmp_path)
    own = {n for n in before if n.startswith("encoder.") and any(part in n for part in OWN)}
    for module in (network, average):
        found = changed(before, module) - {"presence_scale", "presence_shift"}
        assert found
        assert found <= own
        for index in (0, 1):  # both modalities were in the batches
            assert any(f".{index}." in name for name in found)
    assert any("running_mean" in name for name in before)


def test_the_first_stage_changes_the_shared_part_and_no_controller(file, data, teacher, tmp_path):
    recipe = read_mmdkd_recipe(file, "shared", teacher, epochs=2, epoch_length=2)
    network = build_mmdkd_student(recipe, teacher, TABLE)
    before = copied(network)
    average, _ = run_stage(recipe, network, data(recipe), teacher, tmp_path)
    for module in (network, average):
        found = changed(before, module)
        assert all(name.startswith("encoder.") for name in found)
        assert not any(part in name for name in found for part in OWN)
        assert len(found) > 100
    stored = load_model(tmp_path).network
    torch.testing.assert_close(
        stored.state_dict()["encoder.neck.1.weight"],
        average.state_dict()["encoder.neck.1.weight"],
        rtol=1e-2,
        atol=1e-3,
    )


def test_what_controllers_hold_does_not_leak_into_the_first_stage(file, data, teacher, scatter):
    recipe = read_mmdkd_recipe(file, "shared", teacher)
    network = build_mmdkd_student(recipe, teacher, TABLE)
    batch = next(iter(build_view_loader(recipe, data(recipe).slices, network.modalities, teacher)))
    step = MmdkdStep(network, "shared").eval()
    fresh = step(batch, 0)["loss"]
    for parameter in network.encoder.controller_parameters():
        torch.nn.init.normal_(parameter)
    assert torch.equal(step(batch, 0)["loss"], fresh)
    assert not torch.equal(MmdkdStep(network, "controllers").eval()(batch, 0)["loss"], fresh)


@pytest.mark.parametrize("part", ["shared", "controllers"])
def test_a_stage_learns(file, data, teacher, tmp_path, part):
    recipe = read_mmdkd_recipe(
        file, part, teacher, epochs=2, epoch_length=12, rate=5e-3, trunk_rate=1e-3, views=1
    )
    network = build_mmdkd_student(recipe, teacher, TABLE)
    _, losses = run_stage(recipe, network, data(recipe), teacher, tmp_path)
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


def test_statistics_of_batch_norm_move_in_the_first_stage_only(file, teacher):
    recipe = read_mmdkd_recipe(file, "shared", teacher, encoder={**UNFOLDED, "embed_channels": 32})
    network = build_mmdkd_student(recipe, teacher, TABLE)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    MmdkdStep(network, "shared").train()
    assert all(norm.training for norm in norms)
    MmdkdStep(network, "controllers").train()
    assert not any(module.training for module in network.modules())


def test_the_loss_is_the_one_that_is_given(file, data, teacher):
    recipe = read_mmdkd_recipe(file, "shared", teacher)
    network = build_mmdkd_student(recipe, teacher, TABLE)
    batch = next(iter(build_view_loader(recipe, data(recipe).slices, network.modalities, teacher)))

    class Largest(torch.nn.Module):
        def forward(self, ours, theirs, valid):
            return ((ours - theirs) * valid).abs().amax()

    step = MmdkdStep(network, "shared", Largest()).eval()
    ours = network.encoder(batch.image, None).embedding
    torch.testing.assert_close(step(batch, 0)["loss"], (ours - batch.target).abs().amax())


def test_a_decoder_fits_whole_where_the_encoder_is_the_teacher_s(file, teacher, scatter):
    torch.manual_seed(1)
    other = EspMedSam({**MEDICAL, "modalities": 0, "embed_channels": 32}, TABLE, decoder=DECODER)
    encoder = copied(other.encoder)
    assert adopt_decoder(other, teacher.network) == []
    theirs = teacher.network.state_dict()
    assert all(
        torch.equal(v, theirs[k]) for k, v in other.state_dict().items() if not k.startswith("encoder.")
    )
    assert changed(encoder, other.encoder) == set()


def test_skips_of_other_widths_are_told(file, teacher, caplog):
    recipe = read_mmdkd_recipe(file, "controllers", teacher)
    with caplog.at_level(logging.WARNING):
        network = build_mmdkd_student(recipe, teacher, TABLE, decoder=True)
    assert "have no like in the teacher's, such as ['decoder.output_upscaling." in caplog.text
    query = "decoder.mask_query.weight"
    assert torch.equal(network.state_dict()[query], teacher.network.state_dict()[query])
    assert not torch.equal(
        build_mmdkd_student(recipe, teacher, TABLE).state_dict()[query], network.state_dict()[query]
    )


def test_recipes_know_their_teacher(file, teacher):
    recipe = read_mmdkd_recipe(file, "shared", teacher, views=2, epochs=7)
    assert (recipe.teacher, recipe.part, recipe.views, recipe.epochs) == (teacher.sha256, "shared", 2, 7)
    with pytest.raises(UnknownNameError, match="part"):
        read_mmdkd_recipe(file, "controler", teacher)
    with pytest.raises(UsageError, match=r"recipe of a promptable model.*Use effsam distill"):
        read_mmdkd_recipe("promptable", "shared", teacher)


def test_what_cannot_learn_is_refused(file, teacher):
    recipe = read_mmdkd_recipe(
        file, "shared", teacher, encoder={"name": "timm", "model": "mobilenetv3_small_050"}
    )
    with pytest.raises(WeightsError, match="its embedding has 32 channels, expected the student's 256"):
        build_mmdkd_student(recipe, teacher, TABLE)
    plain = EspMedSam({**MEDICAL, "modalities": 0}, TABLE)
    with pytest.raises(SpecError, match="SamVitEncoder has no modality controllers"):
        MmdkdStep(plain, "controllers")
