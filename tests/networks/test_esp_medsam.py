# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The whole network over a convolutional encoder: shapes, prompts at any size, mixed batches, refusals."""

import copy

import pytest
import torch

from monai_effsam.errors import ShapeError, UsageError
from monai_effsam.networks.nets import EspMedSam


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def encode(network, image, modality=0):
    return network.encode(image, torch.full((len(image),), modality))


@pytest.fixture(scope="module")
def network(make_small):
    """Tests must not change it."""
    return make_small().requires_grad_(False)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (64, 96), (160, 32)])
@pytest.mark.parametrize(("modality", "count"), [(0, 2), (1, 1)])
def test_decoded_has_the_promised_shapes(network, height, width, modality, count):
    found = network.decode(encode(network, noise(2, 3, height, width), modality), modality)
    assert found.mask_logits.shape == (2, count, height // 2, width // 2)
    assert found.quality.shape == found.presence.shape == found.presence_logits.shape == (2, count)
    assert found.patch_logits.shape == (2, count, height // 32, width // 32)


def test_modalities_and_targets_follow_the_table(network):
    assert network.modalities == ("ct", "endoscopy")
    assert network.targets_of(0).tolist() == [0, 1]
    assert network.targets_of(1).tolist() == [2]


def test_targets_of_a_modality_need_not_stand_together(network):
    mixed = EspMedSam(
        network.encoder, [network.targets[i] for i in (0, 2, 1)], decoder={"channels": (8, 8, 8)}
    )
    assert mixed.targets_of(0).tolist() == [0, 2]
    with torch.no_grad():
        out = mixed(noise(2, 3, 32, 32), torch.tensor([1, 0]))
    assert [(out[i] == -20).flatten(1).all(1).tolist() for i in range(2)] == [
        [True, False, True],
        [False, True, False],
    ]


def test_forward_enlarges_the_masks_and_fills_up_other_modalities(network):
    image = noise(1, 3, 64, 96)
    out = network(image, 0)
    assert out.shape == (1, 3, 64, 96)
    assert (out[:, 2] == -20).all()
    logits = network.decode(encode(network, image), 0).mask_logits
    want = torch.nn.functional.interpolate(logits, size=(64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(out[:, :2], want)


def test_modality_may_be_a_number_a_tensor_or_left_out(network):
    image = noise(2, 3, 32, 32)
    want = network(image, torch.tensor([0, 0]))
    assert torch.equal(network(image, 0), want)
    assert torch.equal(network(image), want)


def test_mixed_batch_equals_single_images(network):
    image, modality = noise(5, 3, 64, 64), torch.tensor([1, 0, 0, 1, 0])
    alone = [network(image[i : i + 1], modality[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(network(image, modality), torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_the_modality_matters_to_the_embedding(network):
    image = noise(1, 3, 64, 64)
    shift = encode(network, image, 0).embedding - encode(network, image, 1).embedding
    assert shift.abs().mean() > 1e-3


# Prompts

POINT = {"points": torch.tensor([[[8.5, 9.5]]]), "labels": torch.tensor([[1]])}
BOX = {"boxes": torch.tensor([[4.0, 4.0, 20.0, 24.0]])}
MASK = {"masks": torch.full((1, 1, 16, 16), 8.0)}
PROMPTS = {"point": POINT, "box": BOX, "point and box": POINT | BOX, "mask": MASK, "all": POINT | BOX | MASK}


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (96, 32)])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_prompts_steer_the_masks_at_any_size(network, prompts, height, width):
    encoded = encode(network, noise(1, 3, height, width))
    plain, steered = network.decode(encoded, 0), network.decode(encoded, 0, **prompts)
    assert steered.mask_logits.shape == plain.mask_logits.shape
    assert (steered.mask_logits - plain.mask_logits).abs().max() > 1e-3
    assert (steered.quality - plain.quality).abs().max() > 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (POINT, POINT | {"points": torch.tensor([[[25.5, 20.5]]])}),
        (POINT, POINT | {"labels": torch.tensor([[0]])}),
        (BOX, {"boxes": torch.tensor([[4.0, 4.0, 30.0, 24.0]])}),
        (MASK, {"masks": -MASK["masks"]}),
    ],
    ids=["place of a point", "label of a point", "side of a box", "sign of a mask"],
)
def test_what_is_prompted_matters(network, first, second):
    encoded = encode(network, noise(1, 3, 32, 32))
    masks = [network.decode(encoded, 0, **p).mask_logits for p in (first, second)]
    assert (masks[0] - masks[1]).abs().max() > 1e-4


def test_a_prompt_is_coded_by_its_place_in_the_frame(network):
    """The same relative place in a frame of twice the size has the same code, half a pixel aside."""
    small = network.point_box(None, None, torch.tensor([[8.0, 8, 16, 16]]), (32, 64))
    large = network.point_box(None, None, torch.tensor([[16.5, 16.5, 32.5, 32.5]]), (64, 128))
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-5)


def test_padding_points_say_nothing_of_their_place(network):
    encoded = encode(network, noise(1, 3, 32, 32))
    labels = torch.tensor([[1, -1]])
    masks = [
        network.decode(encoded, 0, points=torch.tensor([[[8.5, 9.5], place]]), labels=labels).mask_logits
        for place in ([0.0, 0.0], [30.0, 12.0])
    ]
    assert torch.equal(masks[0], masks[1])


def test_last_image_leaves_no_trace(network):
    encoded = encode(network, noise(1, 3, 32, 32))
    before = network.decode(encoded, 0, **BOX).mask_logits
    network.decode(encode(network, noise(1, 3, 96, 64)), 0, **BOX)
    assert torch.equal(network.decode(encoded, 0, **BOX).mask_logits, before)


def test_points_without_labels_are_refused(network):
    with pytest.raises(ValueError, match="one label a point"):
        network.decode(encode(network, noise(1, 3, 32, 32)), 0, points=POINT["points"])


# Estimates


def test_presence_is_calibrated_by_target(small):
    encoded = encode(small, noise(1, 3, 32, 32))
    raw = small.decode(encoded, 0).presence_logits
    small.presence_scale.copy_(torch.tensor([2.0, 0.5, 9.0]))
    small.presence_shift.copy_(torch.tensor([-1.0, 3.0, 9.0]))
    found = small.decode(encoded, 0)
    torch.testing.assert_close(
        found.presence, (raw * torch.tensor([2.0, 0.5]) + torch.tensor([-1.0, 3.0])).sigmoid()
    )
    assert torch.equal(found.presence_logits, raw)


def test_estimates_are_probabilities(network):
    found = network.decode(encode(network, 5 * noise(4, 3, 32, 32)), 0)
    assert 0 <= found.quality.min() <= found.quality.max() <= 1
    assert 0 <= found.presence.min() <= found.presence.max() <= 1


# Training


def test_gradient_reaches_every_parameter_of_the_modality_in_use(small):
    small.train()
    image = noise(2, 3, 64, 64)
    total = 0
    for modality in (0, 1):
        encoded = encode(small, image, modality)
        for prompts in (
            {},
            {"masks": torch.ones(2, 1, 8, 8)},
            {k: v.expand(2, *v.shape[1:]) for k, v in (POINT | BOX).items()},
        ):
            found = small.decode(encoded, modality, **prompts)
            total = (
                total
                + found.mask_logits.square().mean()
                + found.quality.mean()
                + found.presence_logits.mean()
            )
    total.backward()
    assert [n for n, p in small.named_parameters() if p.requires_grad and p.grad is None] == [
        "point_box.encoder.no_mask_embed.weight"  # the self-prompt takes its place
    ]


def test_state_loads_into_a_twin_and_a_copy_shares_nothing(make_small, network):
    twin = make_small()
    for parameter in twin.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    twin.load_state_dict(network.state_dict())
    image = noise(1, 3, 32, 32)
    torch.testing.assert_close(twin(image), network(image))
    copied = copy.deepcopy(network)
    assert {p.data_ptr() for p in copied.parameters()}.isdisjoint(p.data_ptr() for p in network.parameters())


# Refusals


@pytest.mark.parametrize("shape", [(1, 3, 33, 32), (1, 3, 32, 48), (1, 1, 32, 32), (3, 32, 32)])
def test_images_of_another_shape_are_refused(network, shape):
    with pytest.raises(ShapeError, match=r"multiples of 32\. Apply the model's ImageSpec first"):
        network.encode(torch.zeros(shape), torch.zeros(shape[0], dtype=torch.long))


def test_a_modality_for_each_image_is_asked_for(network):
    with pytest.raises(ShapeError, match="Give one index an image"):
        network.encode(torch.zeros(2, 3, 32, 32), torch.tensor([0]))


@pytest.mark.parametrize("index", [-1, 2])
def test_unknown_modality_is_refused(network, index):
    with pytest.raises(UsageError, match=r"expected indices 0\.\.1"):
        network(torch.zeros(1, 3, 32, 32), index)
