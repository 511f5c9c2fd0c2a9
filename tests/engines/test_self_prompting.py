# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One training step: learning rates, parameter groups, prompts, and that a loss falls."""

import pytest
import torch
from ignite.engine import Events

from monai_effsam.data.balanced import Batch
from monai_effsam.engines.optimisation import Schedule, build_optimizer, step_trainer
from monai_effsam.engines.self_prompting import SelfPromptingStep
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.targets import Target

TARGETS = [
    Target("a", "ct", 1, (0, 0, 0), "", ""),
    Target("b", "mr", 2, (0, 0, 0), "", ""),
    Target("c", "mr", 3, (0, 0, 0), "", ""),
]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return EspMedSam(
        {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2},
        TARGETS,
        decoder={"mlp_dim": 16, "hyper_dim": 8, "channels": (8, 8, 8)},
    )


def batch(modality=1, filled=True):
    count = 2 if modality else 1
    label = torch.zeros(2, count, 32, 32)
    label[:, 0, 8:20, 10:26] = float(filled)
    image = label[:, :1].expand(-1, 3, -1, -1) * 2 + 0.1
    return Batch(image, label, torch.ones(2, count, dtype=torch.bool), modality)


def test_schedule_by_hand():
    schedule = Schedule(steps=20, warmup=4)
    found = [schedule.factor(step) for step in (0, 1, 3, 4, 12, 20, 99)]
    assert found == pytest.approx([0.25, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0])


def test_schedule_without_warm_up_starts_at_the_top():
    assert Schedule(steps=0, warmup=0).factor(0) == 1
    assert Schedule(steps=10, warmup=0).factor(5) == pytest.approx(0.5)


def test_each_parameter_is_in_the_group_it_belongs_to(network):
    groups = build_optimizer(network, Schedule(10, rate=1.0, trunk_rate=0.1), weight_decay=0.5).param_groups
    place = {id(p): (g["base_lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    named = dict(network.named_parameters())
    assert len(place) == len(named)
    want = {
        "encoder.trunk.conv_stem.weight": (0.1, 0.5),
        "encoder.trunk.conv_stem.bias": (0.1, 0.0),
        "encoder.lateral.weight": (1.0, 0.5),
        "encoder.lateral.bias": (1.0, 0.0),
        "encoder.attention.token": (1.0, 0.0),
        "decoder.mask_query.weight": (1.0, 0.0),
    }
    assert {name: place[id(named[name])] for name in want} == want


def test_frozen_parameters_are_left_out(network):
    network.encoder.trunk.requires_grad_(False)
    groups = build_optimizer(network, Schedule(10)).param_groups
    assert {g["base_lr"] for g in groups} == {1e-3}


def test_a_step_without_prompts_is_the_loss_alone(network):
    terms = SelfPromptingStep(network, prompted_share=0)(batch(), 0)
    assert set(terms) == {"loss", "mask", "patch", "presence", "quality"}
    want = terms["mask"] + 0.5 * terms["patch"] + 0.2 * (terms["presence"] + terms["quality"])
    assert terms["loss"].item() == pytest.approx(want.item())


def test_a_prompted_step_adds_the_prompted_objects_loss(network):
    plain = SelfPromptingStep(network.eval(), prompted_share=0)(batch(), 0)
    terms = SelfPromptingStep(network, prompted_share=1)(batch(), 0)
    assert terms["prompted"] > 0
    assert terms["loss"].item() == pytest.approx((plain["loss"] + terms["prompted"]).item())


def test_pictures_that_hold_nothing_are_not_prompted(network):
    assert "prompted" not in SelfPromptingStep(network, prompted_share=1)(batch(filled=False), 0)


def test_a_step_depends_on_its_number_and_seed_alone(network):
    step = SelfPromptingStep(network.eval(), prompted_share=0.5)
    first = [step(batch(), i)["loss"].item() for i in range(4)]
    again = [step(batch(), i)["loss"].item() for i in (3, 2, 1, 0)][::-1]
    assert first == again
    assert len(set(first)) > 1


def test_prompted_steps_reach_the_prompt_encoder_with_a_gradient(network):
    step = SelfPromptingStep(network, prompted_share=1)
    for index in range(6):  # boxes, points and a mask all occur
        step(batch(), index)["loss"].backward()
    silent = [name for name, p in network.point_box.named_parameters() if p.grad is None]
    assert silent == ["encoder.no_mask_embed.weight"]  # the self-prompt takes its place


def test_training_lowers_the_loss_and_follows_the_schedule(network):
    schedule = Schedule(steps=16, warmup=2, rate=3e-3, trunk_rate=1e-3)
    optimizer = build_optimizer(network, schedule)
    losses, rates = [], []
    trainer = step_trainer(
        SelfPromptingStep(network, prompted_share=0.2),
        [batch()] * 8,
        optimizer,
        schedule,
        epochs=2,
        epoch_length=8,
    )

    def watch(engine):
        losses.append(engine.state.output["mask"])
        rates.append(optimizer.param_groups[0]["lr"] / optimizer.param_groups[0]["base_lr"])

    trainer.add_event_handler(Events.ITERATION_COMPLETED, watch)
    trainer.run()
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert rates == pytest.approx([schedule.factor(i) for i in range(16)])
