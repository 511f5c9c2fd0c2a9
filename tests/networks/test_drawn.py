# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Prompts as a picture: where a box and clicks are drawn, and that the network sees them."""

import pytest
import torch

from monai_effsam.networks.nets import PromptableSam
from monai_effsam.networks.prompts.drawn import draw_prompts

FRAME = torch.tensor([64.0, 64.0])


def drawn(points, labels, canvas=None):
    like = torch.zeros(1, 4, 4, 4)  # drawn on 16 x 16: a cell is 4 px
    return draw_prompts(torch.tensor([points]), torch.tensor([labels]), FRAME, canvas, like)[0, 0]


def test_a_box_is_filled_and_its_outside_is_not():
    found = drawn([[8.0, 16.0], [40.0, 32.0]], [2, 3])
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:8, 2:10] = True  # rows are y
    assert (found[inside] == 4).all()
    assert (found[~inside] == -8).all()


def test_clicks_are_disks_of_their_side_on_nothing():
    found = drawn([[10.0, 30.0], [50.0, 6.0], [0.0, 0.0]], [1, 0, -1])
    assert found[7, 2] == 8
    assert found[1, 12] == -8
    assert (found != 0).sum() == 2  # the padding point is not drawn


def test_the_last_of_clicks_on_one_spot_counts_and_lies_upon_the_box():
    corners = [[0.0, 0.0], [64.0, 64.0]]
    found = drawn([*corners, [10.0, 30.0], [10.0, 30.0]], [2, 3, 1, 0])
    assert found[7, 2] == -8
    assert (found == 4).sum() == 255
    assert drawn([*corners, [10.0, 30.0], [10.0, 30.0]], [2, 3, 0, 1])[7, 2] == 8


def test_an_earlier_mask_stays_apart_from_the_clicks():
    earlier = torch.randn(1, 1, 16, 16)
    found = drawn([[0.0, 0.0], [8.0, 8.0], [10.0, 30.0]], [2, 3, 1], earlier)
    changed = found != earlier[0, 0]
    assert changed.sum() == 1
    assert found[7, 2] == 8


@pytest.mark.parametrize("drawn", [True, False])
def test_the_network_adds_the_drawing_and_only_where_it_is_asked_to(drawn):
    torch.manual_seed(0)
    encoder = {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2}
    net = PromptableSam(encoder, mlp_dim=16, drawn=drawn).eval()
    image = torch.rand(1, 3, 64, 64)
    boxes = torch.tensor([[[8.0, 8.0, 40.0, 40.0], [30.0, 2.0, 60.0, 20.0]]])
    masks = net(image, boxes=boxes).mask_logits
    with torch.no_grad():
        net.prompt_encoder.mask_downscaling[-1].bias.add_(5)
    again = net(image, boxes=boxes).mask_logits
    assert torch.equal(masks, again) != drawn
