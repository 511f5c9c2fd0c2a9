# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training of a promptable network: the simulated user's objects and clicks, a step, and a run that learns."""

import numpy as np
import pytest
import torch

from monai_effsam.data.balanced import Batch
from monai_effsam.engines.build import adopt_checkpoint, build_network, build_promptable
from monai_effsam.engines.promptable import PromptableStep, PromptSettings
from monai_effsam.engines.prompting import error_clicks, simulate_objects
from monai_effsam.engines.recipe import PromptableRecipe, Recipe, read_recipe
from monai_effsam.errors import UsageError, WeightsError

ENCODER = {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2}


@pytest.fixture
def recipe():
    return PromptableRecipe(encoder=ENCODER, mlp_dim=32, image_spec={"size": 64})


@pytest.fixture
def network(recipe):
    torch.manual_seed(0)
    return build_promptable(recipe)


def two_disks():
    """One picture of target 0 in two pieces, one of target 1 in one, one of nothing."""
    label = torch.zeros(3, 2, 64, 64)
    label[0, 0, 4:14, 4:14] = label[0, 0, 40:60, 40:60] = 1
    label[1, 1, 20:50, 10:30] = 1
    return label, torch.ones(3, 2, dtype=torch.bool)


def test_objects_are_whole_targets_or_pieces_with_their_own_box_and_click():
    label, known = two_disks()
    found = simulate_objects(label, known, np.random.RandomState(0), 40, jitter=0)
    assert found.valid.tolist() == [[True] * 40, [True] * 40, [False] * 40]
    sizes = set(found.label[0].flatten(1).sum(1).tolist())
    assert sizes == {100.0, 400.0, 500.0}
    for picture in (0, 1):
        for mask, box, (x, y) in zip(
            found.label[picture], found.boxes[picture], found.clicks[picture], strict=True
        ):
            rows, columns = torch.nonzero(mask.any(1)).flatten(), torch.nonzero(mask.any(0)).flatten()
            assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert mask[int(y), int(x)] == 1


def test_boxes_stray_as_far_as_they_are_told():
    label, known = two_disks()
    found = simulate_objects(label[1:2], known[1:2], np.random.RandomState(0), 400, jitter=0.02)
    tight = torch.tensor([10.0, 20, 30, 50])
    assert (found.boxes[0] - tight).std(0) == pytest.approx(torch.full((4,), 0.02 * 64), rel=0.15)


def test_unknown_targets_are_never_prompted():
    label, known = two_disks()
    known[1, 1] = False
    assert not simulate_objects(label, known, np.random.RandomState(0), 2).valid[1].any()


def test_error_clicks_lie_in_the_error_and_say_which_side_it_is_on():
    label = torch.zeros(1, 3, 8, 8, dtype=torch.bool)
    label[0, :, 2:6, 2:6] = True
    found = label.clone()
    found[0, 0, 2:4] = False  # lacks its upper half
    found[0, 1, 7, 7] = True  # a pixel too many
    places, sides = error_clicks(found, label, np.random.RandomState(0))
    assert sides.tolist() == [[1, 0, -1]]
    x, y = places[0, 0].long()
    assert label[0, 0, y, x]
    assert not found[0, 0, y, x]
    assert places[0, 1].tolist() == [7.5, 7.5]


@pytest.mark.parametrize("rounds", [(), (1.0, 1.0)])
def test_a_step_reaches_every_part_with_a_gradient(network, rounds):
    label, known = two_disks()
    step = PromptableStep(network, PromptSettings(rounds=rounds, multimask=0.5))
    image = torch.rand(3, 3, 64, 64)
    for number in range(6):  # one mask and three both occur
        terms = step(Batch(image, label, known, 0), number)
        terms["loss"].backward()
    assert ("mended" in terms) == bool(rounds)
    silent = {n for n, p in network.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())}
    readings = [{n for n in silent if f"hypernetworks_mlps.{i}." in n} for i in (1, 2, 3)]
    assert not all(readings)  # of the three masks of a click the best is trained, so one of them was
    assert not any("hypernetworks_mlps.0." in n for n in silent)
    others = silent.difference(*readings)
    never = {"prompt_encoder.no_mask_embed.weight"}  # a drawing takes its place
    first = {n for n in others if "point_embeddings.0" in n}  # clicks outside come in later rounds
    assert others == (never if rounds else never | first)
    assert bool(first) != bool(rounds)


def test_steps_lower_the_loss_of_boxes_and_of_clicks(network):
    label, known = two_disks()
    image = label.sum(1, keepdim=True).expand(-1, 3, -1, -1) * 2 - 0.5
    step = PromptableStep(network, PromptSettings(rounds=(0.3,)))
    optimizer = torch.optim.AdamW(step.parameters(), 2e-3)
    curve = []
    for number in range(40):
        optimizer.zero_grad()
        terms = step(Batch(image, label, known, 0), number)
        terms["loss"].backward()
        optimizer.step()
        curve.append((float(terms["box"]), float(terms["point"])))
    first, last = np.mean(curve[:5], 0), np.mean(curve[-5:], 0)
    assert (last < 0.6 * first).all()


def test_a_step_is_the_same_whenever_it_is_done(network):
    label, known = two_disks()
    batch = Batch(torch.rand(3, 3, 64, 64), label, known, 0)
    step = PromptableStep(network).eval()
    assert step(batch, 3)["loss"] == step(batch, 3)["loss"]
    assert step(batch, 3)["loss"] != step(batch, 4)["loss"]


def test_the_self_prompting_model_lends_its_encoder_and_decoder(tmp_path, recipe):
    from monai_effsam.checkpoints import save_model

    own = Recipe(encoder=ENCODER, decoder={"mlp_dim": 32, "hyper_dim": 8, "channels": [8, 8, 8]})
    source = build_network(own)
    file = save_model(tmp_path / "model.pt", source, own.specs(), own.network_options(), half=False)
    found = build_promptable(recipe, file).state_dict()
    theirs = source.state_dict()
    trunk = "trunk.conv_stem.weight"
    assert torch.equal(found[f"image_encoder.{trunk}"], theirs[f"encoder.{trunk}"])
    layer = "transformer.layers.1.mlp.lin1.weight"
    assert torch.equal(found[f"mask_decoder.{layer}"], theirs[f"decoder.{layer}"])
    grid = "pe_layer.positional_encoding_gaussian_matrix"
    assert torch.equal(found[f"prompt_encoder.{grid}"], theirs[f"point_box.encoder.{grid}"])
    odd = PromptableRecipe(
        encoder={"name": "timm_sam_neck", "model": "resnet18", "embed_channels": 48},
        mlp_dim=24,
        image_spec={"size": 64},
    )
    with pytest.raises(WeightsError, match="no tensor fits the recipe's encoder"):
        build_promptable(odd, file)


def test_a_promptable_model_is_tuned_as_it_is(tmp_path, network, recipe):
    from monai_effsam.checkpoints import load_checkpoint, save_model

    save_model(tmp_path / "model.pt", network, recipe.stored_specs(), recipe.network_options(), half=False)
    tuned = adopt_checkpoint(PromptableRecipe(objects=5), load_checkpoint(tmp_path))
    assert tuned.stored_specs() == recipe.stored_specs()
    assert (tuned.objects, tuned.rate, tuned.warm_share) == (5, 1e-4, 0)
    found = build_promptable(tuned, tmp_path).state_dict()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_a_kind_is_a_recipe_and_a_wrong_one_is_told(tmp_path):
    assert read_recipe("promptable", epochs=3) == PromptableRecipe(epochs=3)
    assert read_recipe("self_prompting") == Recipe()
    (tmp_path / "r.json").write_text('{"kind": "prompted"}')
    with pytest.raises(UsageError, match="kind is 'prompted', expected one of self_prompting, promptable"):
        read_recipe(tmp_path / "r.json")
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(UsageError, match="holds no JSON object"):
        read_recipe(tmp_path / "r.json")


def test_specs_differ_in_intensities_alone(recipe):
    specs = recipe.stored_specs()
    assert set(specs) == {"", "ct"}
    assert (specs[""].intensity, specs["ct"].intensity, specs["ct"].size) == ("uint8", "tissue", 64)
    assert recipe.specs()["mr"] == specs[""]
