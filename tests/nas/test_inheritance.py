# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Inherited weights: the widest member is the trunk itself, narrower ones keep what counts, wider ones add."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from monai_effsam.errors import UnknownNameError, UsageError, WeightsError
from monai_effsam.nas.inheritance import LayerWeights, TrunkBlock, inherit, read_trunk
from monai_effsam.nas.inheritance.channels import chosen_channels
from monai_effsam.nas.inheritance.fitting_blocks import (
    fill_fused,
    fill_inverted,
    fill_separable,
    fitted_kernel,
    quieten,
)
from monai_effsam.nas.space import SPACES, Architecture, StageShape
from monai_effsam.nas.supernet import SearchSupernet, derived_encoder, narrowed
from monai_effsam.networks.blocks.operations import INVERTED, OPERATIONS, build_operation
from monai_effsam.networks.encoders import SearchedEncoder
from monai_effsam.networks.encoders.inverted_trunk import inverted_entry
from monai_effsam.networks.foreign import import_timm

pytest.importorskip("safetensors")
timm = import_timm()

LITE = "tf_efficientnet_lite0"
MOBILE = Architecture(
    tuple(
        StageShape(stride, width, ("mbconv_k3_e6",) * more, "mbconv_k3_e6")
        for stride, width, more in (
            (4, 24, 1),
            (8, 32, 2),
            (16, 64, 3),
            (16, 96, 2),
            (32, 160, 2),
            (32, 320, 0),
        )
    ),
    trunk="inverted",
)
"""MobileNetV2."""


def drawn_network(name, seed=0):
    """A network of timm's with weights and statistics at random, such that no norm is the identity."""
    torch.manual_seed(seed)
    network = timm.create_model(name, num_classes=0).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


def kept(network, folder):
    file = folder / "trunk.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, file)
    return file


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    """EfficientNet-Lite0 and what is read of its file."""
    network = drawn_network(LITE)
    return network, read_trunk(kept(network, tmp_path_factory.mktemp("lite")))


@torch.no_grad()
def timm_maps(network, image):
    x = network.bn1(network.conv_stem(image))
    return [x := blocks(x) for blocks in network.blocks]


@torch.no_grad()
def own_maps(encoder, image):
    encoder.eval()
    maps = encoder.stem(image)
    for stage in encoder.stages:
        maps.append(stage(maps[-1]))
    return maps


def picture(size=64):
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.mark.parametrize("name", [LITE, "mobilenetv2_100"])
@pytest.mark.parametrize("fold", [False, True])
def test_the_widest_member_gives_the_maps_of_the_trunk(name, fold, tmp_path):
    network = drawn_network(name)
    architecture = SPACES["inherited"].largest() if name == LITE else MOBILE
    encoder = SearchedEncoder(architecture=architecture, fold=fold)
    found = inherit(encoder, read_trunk(kept(network, tmp_path), name))
    image = picture()
    ours, theirs = own_maps(encoder, image), timm_maps(network, image)
    assert len(ours) == 6 if name == LITE else len(ours) == len(theirs) == 7
    for own, their in zip(ours, theirs, strict=False):
        torch.testing.assert_close(own, their, atol=1e-4, rtol=1e-4)
    assert set(found.blocks.values()) == {1.0}
    convolutions = [m for part in (encoder.stem, encoder.stages) for m in part.modules()]
    weights = sum(m.weight.numel() for m in convolutions if isinstance(m, nn.Conv2d))
    assert found.inherited == weights
    assert found.share == pytest.approx(weights / sum(p.numel() for p in encoder.parameters()))
    assert encoder.inherited == found.to_json()


def test_another_input_changes_maps_at_the_border_alone(lite):
    network, trunk = lite
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    encoder = SearchedEncoder(architecture=SPACES["inherited"].largest())
    inherit(encoder, trunk, mean=mean, std=std)
    image = picture()
    parts = (torch.tensor(part)[:, None, None] for part in (trunk.std, trunk.mean, mean, std))
    trunk_std, trunk_mean, own_mean, own_std = parts
    seen = (image * trunk_std + trunk_mean - own_mean) / own_std
    own, their = own_maps(encoder, seen)[0], timm_maps(network, image)[0]
    torch.testing.assert_close(own[..., :-2, :-2], their[..., :-2, :-2], atol=1e-4, rtol=1e-4)
    assert (own - their).abs().max() > 1e-3


def silenced(network, stage, channels):
    """Let some channels of a stage's map be 0, and nobody listen to them."""
    with torch.no_grad():
        for block in network.blocks[stage]:
            block.conv_pwl.weight[channels] = 0
            block.bn3.bias[channels] = 0
            block.bn3.running_mean[channels] = 0
    return network


def test_narrower_stages_keep_the_channels_that_count(tmp_path):
    quiet = torch.tensor([0, 3, 4, 9, 13, 17, 20, 21])
    network = silenced(drawn_network(LITE), 1, quiet)
    with torch.no_grad():  # and hidden channels that lead nowhere
        network.blocks[1][1].conv_pwl.weight[:, 10:58] = 0
    whole = SPACES["inherited"].largest()
    first = replace(whole.stages[0], width=16, ops=("mbconv_k3_e6",))
    narrow = replace(whole, stages=(first, *whole.stages[1:]))
    encoder = SearchedEncoder(architecture=narrow)
    found = inherit(encoder, read_trunk(kept(network, tmp_path)))
    ours, theirs = own_maps(encoder, picture()), timm_maps(network, picture())
    loud = [i for i in range(24) if i not in quiet]
    torch.testing.assert_close(ours[1], theirs[1][:, loud], atol=1e-4, rtol=1e-4)
    # 6 x 16 hidden channels are kept of 6 x 24; those that lead nowhere are 48
    assert found.blocks["stage4.0.mbconv_k3_e6"] == 1.0
    assert encoder.stages[1][0][0].c.weight.shape == (96, 16, 1, 1)


def test_the_next_stage_reads_the_channels_that_were_kept(tmp_path):
    network = silenced(drawn_network(LITE), 1, torch.arange(3, 11))
    whole = SPACES["inherited"].largest()
    narrow = replace(whole, stages=(replace(whole.stages[0], width=16, ops=()), *whole.stages[1:]))
    trunk = read_trunk(kept(network, tmp_path))
    encoder = SearchedEncoder(architecture=narrow)
    inherit(encoder, trunk)
    entry = encoder.stages[1][0][0].c.weight[:, :, 0, 0]
    loud = [*range(3), *range(11, 24)]
    theirs = network.blocks[2][0].conv_pw.weight[:, :, 0, 0][:, loud]
    rows = [int((theirs - row).abs().sum(1).argmin()) for row in entry]
    assert rows == sorted(rows)
    torch.testing.assert_close(entry, theirs[rows])


def test_wider_stages_hold_the_trunk_undisturbed(lite):
    network, trunk = lite
    whole = SPACES["inherited"].largest()
    stages = tuple(replace(stage, width=stage.width + 16) for stage in whole.stages)
    torch.manual_seed(0)
    encoder = SearchedEncoder(architecture=replace(whole, stages=stages))
    found = inherit(encoder, trunk)
    ours, theirs = own_maps(encoder, picture()), timm_maps(network, picture())
    for own, their in zip(ours, theirs, strict=False):
        torch.testing.assert_close(own[:, : their.shape[1]], their, atol=1e-4, rtol=1e-4)
    assert ours[-1][:, 192:].abs().max() > 0.01
    assert 0.3 < found.blocks["stage4.0.mbconv_k3_e6"] < 0.7


def test_a_supernet_holds_the_trunk_with_its_channels_in_order_of_importance(lite):
    network, trunk = lite
    space = narrowed(SPACES["inherited"], stride=8, decoder_depth=1)
    supernet = SearchSupernet(space)
    inherit(supernet, trunk)
    largest = replace(space.largest(), neck=space.smallest().neck)
    ours, theirs = own_maps(derived_encoder(supernet, largest), picture()), timm_maps(network, picture())
    for own, their in zip(ours[1:], theirs[1:], strict=False):
        assert not torch.allclose(own, their, atol=1e-2)
        order = [int((their - own[:, i : i + 1]).abs().sum((0, 2, 3)).argmin()) for i in range(own.shape[1])]
        assert sorted(order) == list(range(their.shape[1]))
        torch.testing.assert_close(own, their[:, order], atol=1e-4, rtol=1e-4)
    scales = [n for n, p in supernet.named_parameters() if n.endswith("bn.weight")]
    assert not scales  # they were inherited, and stay


@pytest.mark.parametrize(("side", "factor"), [(3, 25 / 9), (5, 1), (7, 1)])
def test_kernels_keep_the_sum_of_their_absolute_weights(side, factor):
    kernel = torch.ones(2, 1, 5, 5)
    kernel[1] *= -2
    found = fitted_kernel(kernel, side)
    assert found.shape == (2, 1, side, side)
    torch.testing.assert_close(found.abs().sum((1, 2, 3)), torch.tensor([25.0, 50.0]))
    centre = side // 2
    assert found[1, 0, centre, centre] == pytest.approx(-2 * factor)
    assert found[0, 0, 0, 0] == (0 if side == 7 else pytest.approx(factor))


def test_a_kernel_with_a_hollow_centre_does_not_explode():
    kernel = torch.ones(1, 1, 5, 5)
    kernel[..., 1:4, 1:4] = 1e-6
    assert fitted_kernel(kernel, 3).abs().max() == pytest.approx(1e-5)


def layer(weight, **parts):
    count = len(weight)
    found = {"scale": torch.ones(count), "shift": torch.zeros(count), "mean": torch.zeros(count)}
    return LayerWeights(weight, **{**found, "variance": torch.ones(count), **parts})


def passing_block(hidden=12, seed=1):
    """A block of 4 channels whose activations neither clip nor cut, for small positive inputs."""
    generator = torch.Generator().manual_seed(seed)
    expand = torch.rand(hidden, 4, 1, 1, generator=generator) / 4
    kernel = torch.rand(hidden, 1, 3, 3, generator=generator) / 9
    out = torch.randn(4, hidden, 1, 1, generator=generator)
    halves = {"variance": torch.full((hidden,), 0.25)}  # a gain of 2
    return TrunkBlock(layer(expand, **halves), layer(kernel, shift=torch.full((hidden,), 0.1)), layer(out))


def as_trunk_has_it(block):
    layers = inverted_entry(4, 4, name="mbconv_k3_e6", stride=1)
    everyone = torch.arange(4)
    fill_inverted(layers, block, everyone, everyone, ordered=False)
    return layers.eval()


def inner_cells(x):
    return x[..., 2:-2, 2:-2]


@torch.no_grad()
def test_a_fused_block_is_the_product_where_activations_pass():
    block = passing_block(hidden=8)
    block = block._replace(expand=block.expand._replace(shift=torch.full((8,), 0.3)))
    fused = build_operation("fused_k3_e2", 8).branch
    wide = torch.arange(4)
    filled = fill_fused(fused, block, wide, ordered=False)
    x = torch.rand(1, 4, 9, 9, generator=torch.Generator().manual_seed(2)) / 4
    own = fused.eval()(torch.cat([x, 9 * x], 1))[:, :4]
    theirs = as_trunk_has_it(block)(x)
    torch.testing.assert_close(inner_cells(own), inner_cells(theirs), atol=1e-4, rtol=1e-4)
    assert filled.inherited == 8 * 4 * 9 + 4 * 8


@torch.no_grad()
def test_a_separable_block_is_the_trunks_where_each_channel_feeds_one_hidden():
    block = passing_block(hidden=8)
    feeding = torch.zeros(8, 4, 1, 1)
    for channel, hidden in enumerate((6, 1, 3, 0)):
        feeding[hidden, channel] = 0.3 + 0.1 * channel
    block = block._replace(expand=block.expand._replace(weight=feeding))
    block = block._replace(depthwise=block.depthwise._replace(shift=torch.zeros(8)))
    separable = build_operation("dwsep_k5", 8).branch
    filled = fill_separable(separable, block, torch.arange(4))
    x = torch.rand(1, 4, 9, 9, generator=torch.Generator().manual_seed(2)) / 4
    own = separable.eval()(torch.cat([x, 9 * x], 1))[:, :4]
    torch.testing.assert_close(own, as_trunk_has_it(block)(x), atol=1e-4, rtol=1e-4)
    assert filled.inherited == 4 * 25 + 16


def test_a_separable_block_takes_no_hidden_channel_twice():
    block = passing_block(hidden=8)
    alike = block.expand.weight.clone()
    alike[5] = 3.0  # the best for all
    separable = build_operation("dwsep_k3", 8).branch
    fill_separable(separable, block._replace(expand=block.expand._replace(weight=alike)), torch.arange(4))
    columns = separable[2].c.weight[:4, :4, 0, 0]
    assert all((columns[:, i] - columns[:, j]).abs().sum() > 0 for i in range(4) for j in range(i))


def test_channels_are_chosen_by_importance_and_stay_in_order_or_come_best_first():
    importance = torch.tensor([0.1, 3.0, 0.2, 2.0, 9.0])
    assert chosen_channels(importance, 3, ordered=False).tolist() == [1, 3, 4]
    assert chosen_channels(importance, 3, ordered=True).tolist() == [4, 1, 3]
    assert chosen_channels(importance, 9, ordered=False).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "name", [n for n, o in OPERATIONS.items() if not o.reference and n not in ("skip", "msa_conv_k3")]
)
def test_blocks_can_be_made_to_hand_on_their_input_and_still_learn(name):
    block = build_operation(name, 16)
    assert quieten(block)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(x), x)
    block(x).square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_slots_without_an_ancestor_hand_on_the_map_of_the_trunk(lite):
    network, trunk = lite
    whole = SPACES["inherited"].largest()
    first = replace(whole.stages[0], ops=("mbconv_k3_e6", "dwsep_k3", "mbconv_k3_e4"))
    encoder = SearchedEncoder(architecture=replace(whole, stages=(first, *whole.stages[1:])))
    found = inherit(encoder, trunk)
    torch.testing.assert_close(
        own_maps(encoder, picture())[5], timm_maps(network, picture())[5], atol=1e-4, rtol=1e-4
    )
    assert found.blocks["stage4.1.dwsep_k3"] == found.blocks["stage4.2.mbconv_k3_e4"] == 0.0


def test_plain_trunks_inherit_their_first_filters_and_inverted_blocks(lite):
    _, trunk = lite
    one = Architecture(
        (
            StageShape(4, 32, ("mbconv_k3_e4", "grouped_k3")),
            StageShape(8, 48, ("mbconv_k7_e2",)),
            StageShape(16, 96, ("fused_k3_e1", "dwsep_k5")),
        )
    )
    encoder = SearchedEncoder(architecture=one)
    found = inherit(encoder, trunk)
    assert found.blocks["stage4.1.grouped_k3"] == found.blocks["stage8.entry.conv"] == 0.0
    for name in ("stem", "stage4.0.mbconv_k3_e4", "stage8.0.mbconv_k7_e2", "stage16.0.fused_k3_e1"):
        assert found.blocks[name] > 0.05
    first, theirs = encoder.stem[0][0].c.weight, trunk.stem[0].weight
    assert all(any(torch.equal(row, their) for their in theirs) for row in first)
    assert encoder(picture(), None).embedding.isfinite().all()


def test_other_paddings_are_told(lite, caplog):
    inherit(SearchedEncoder(architecture=MOBILE), lite[1])
    assert "pads otherwise than a trunk of the kind inverted" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "efficientnet_b0",
            "efficientnet_b0 has squeeze-excitation, expected plain inverted residuals with ReLU6",
        ),
        ("mobilenetv3_large_100", "mobilenetv3_large_100 has squeeze-excitation"),
        ("tf_mobilenetv3_large_minimal_100", "has blocks of another family"),
        ("mnasnet_100", "mnasnet_100 has the activation ReLU, expected"),
        ("resnet18", "resnet18 has blocks of another family.*Take tf_efficientnet_lite0 or mobilenetv2_100"),
    ],
)
def test_other_networks_are_refused(name, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        read_trunk(tmp_path / "none.safetensors", name)


def test_wrong_files_and_names_are_refused(tmp_path, lite):
    file = tmp_path / "a.safetensors"
    with pytest.raises(WeightsError, match=r"a\.safetensors: is no readable safetensors file"):
        read_trunk(file)
    file.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"is no readable safetensors file .*, expected weights of tf_eff"):
        read_trunk(file)
    with pytest.raises(WeightsError, match=r"lacks \d+ of \d+ tensors of mobilenetv2_100, such as"):
        read_trunk(kept(lite[0], tmp_path), "mobilenetv2_100")
    with pytest.raises(UnknownNameError, match="network to inherit from"):
        read_trunk(file, "mobilenetv2_1000")


def test_every_inverted_residual_is_an_operation():
    assert set(INVERTED) <= set(OPERATIONS)
    assert "mbconv_k5_e6" in INVERTED
