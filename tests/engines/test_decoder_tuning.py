# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""KD SAM's second stage: the decoder learns, and nothing else of the network moves by one bit."""

import pytest
import torch

from monai_effsam.data.distilling import ViewBatch
from monai_effsam.engines.decoder_tuning import TuningStep, prompted_dice
from monai_effsam.engines.promptable import PromptSettings
from monai_effsam.networks.nets import PromptableSam

ENCODER = {"name": "timm_pyramid", "model": "mobilenetv3_small_050", "train_norms": True}
"""BatchNorm that would follow the batches wherever it is in training mode."""

DISK = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")).sub(30)


def batch(embedding=True, count=2, radius=14.0):
    g = torch.Generator().manual_seed(0)
    label = (DISK.square().sum(0) < radius**2).float().expand(count, 1, 64, 64)
    return ViewBatch(
        torch.randn(count, 3, 64, 64, generator=g) + 2 * label,
        torch.zeros(count, dtype=torch.int64),
        torch.randn(count, 256 if embedding else 0, 4, 4, generator=g),
        torch.ones(count, 1, 4, 4),
        label,
        torch.ones(count, 1, dtype=torch.bool),
    )


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PromptableSam(ENCODER, mlp_dim=64)


def train(step, one, steps):
    optimizer = torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], lr=1e-3)
    for number in range(steps):
        step.train()
        optimizer.zero_grad()
        step(one, number)["loss"].backward()
        optimizer.step()


def moved(network, before):
    return {k.split(".")[0] for k, v in network.state_dict().items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize(
    ("whole", "expected"),
    [(False, {"mask_decoder"}), (True, {"image_encoder", "prompt_encoder", "mask_decoder"})],
)
def test_what_moves_and_what_does_not(network, whole, expected):
    before = {k: v.clone() for k, v in network.state_dict().items()}
    train(TuningStep(network, whole=whole), batch(), 2)
    assert moved(network, before) == expected


def test_frozen_parts_stay_in_eval_mode_and_norms_keep_their_statistics(network):
    before = {k: v.clone() for k, v in network.named_buffers()}
    step = TuningStep(network).train()
    assert network.mask_decoder.training
    assert not any(m.training for m in network.image_encoder.modules())
    assert not any(m.training for m in network.prompt_encoder.modules())
    network.encode(batch().image)
    assert all(torch.equal(v, before[k]) for k, v in network.named_buffers())
    TuningStep(network, whole=True).train()
    assert network.image_encoder.training
    assert all(p.requires_grad for p in step.parameters())


@pytest.mark.slow
def test_a_decoder_learns_a_disk(network):
    one = batch()
    start = prompted_dice(network, [one])
    train(TuningStep(network, settings=PromptSettings(objects=1)), one, 25)
    end = prompted_dice(network, [one])
    assert end["dice"] > start["dice"] + 0.2
    assert end["dice"] == pytest.approx((end["box"] + end["point"]) / 2)


def test_steps_are_a_pure_function_of_their_number(network):
    step = TuningStep(network, seed=3)
    with torch.no_grad():
        losses = [float(step(batch(), number)["loss"]) for number in (5, 5, 6)]
    assert losses[0] == losses[1] != losses[2]


def test_dice_counts_pictures_that_hold_something(network):
    class Oracle(torch.nn.Module):
        """Its masks are the label; `half` of it in the first picture."""

        prompt_frame = network.prompt_frame

        def decode(self, encoded, **prompts):
            logits = batch().label[:, None] * 2 - 1
            logits[0, ..., :30] = -1
            return type("Masks", (), {"mask_logits": logits})

    empty = batch(count=1, radius=0.0)
    both = prompted_dice(Oracle(), [batch()])
    label = batch().label[0, 0]
    half = label.clone()
    half[:, :30] = 0
    by_hand = float(2 * (half * label).sum() / (half.sum() + label.sum()))
    assert both["box"] == both["point"] == pytest.approx((by_hand + 1) / 2)
    assert prompted_dice(network, [empty]) == {"dice": 0.0, "box": 0.0, "point": 0.0}


def test_images_are_encoded_where_everything_trains(network):
    one = batch(embedding=False)
    assert prompted_dice(network, [one], whole=True)["dice"] > 0
    TuningStep(network, whole=True)(one, 0)["loss"].backward()
    assert network.image_encoder.neck[1].weight.grad.abs().sum() > 0
