# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The supernet: hard draws are the drawn network bit for bit, costs are the table's, derived nets compute the same."""

import dataclasses
import random
from functools import partial

import pytest
import torch

from monai_effsam.errors import SpecError, UsageError
from monai_effsam.nas.cost import LatencyFit, LatencyTable, cost_of, space_decoders, space_pieces
from monai_effsam.nas.space import OPERATIONS, SPACES, SearchSpace, StageChoices
from monai_effsam.nas.supernet import (
    ExpectedCost,
    LotSettings,
    SearchSupernet,
    argmax_architecture,
    budgeted_architectures,
    derived_encoder,
    draw_lots,
    frames,
    latency_price,
    mac_price,
    narrowed,
    recalibrate,
)
from monai_effsam.nas.supernet.slicing import SlicedModule
from monai_effsam.networks.blocks.operations import build_operation

OPS = tuple(name for name, op in OPERATIONS.items() if not op.reference and name != "skip")
TOY = SearchSpace(
    "toy",
    (
        StageChoices(8, (16, 32), 2, ("dwsep_k3", "fused_k3_e1", "linear_attention")),
        StageChoices(16, (32, 48), 2, ("dwsep_k3", "mbconv_k3_e2", "msa_conv_k3")),
    ),
    stems=(8,),
    strides=(8,),
    sizes=(64,),
    neck_widths=(16, 32),
    neck_kinds=("separable", "dense"),
    decoder_widths=(32,),
    decoder_depths=(1,),
    mlp_dims=(32,),
)
INVERTED = SearchSpace(
    "inverted",
    (
        StageChoices(4, (16, 24), 1, ("mbconv_k3_e2", "dwsep_k3"), "mbconv_k3_e2"),
        StageChoices(8, (24, 40), 1, ("mbconv_k5_e2", "dwsep_k3"), "mbconv_k5_e4"),
        StageChoices(16, (32, 40), 1, ("fused_k3_e1",), "mbconv_k3_e2"),
        StageChoices(16, (48, 64), 2, ("mbconv_k3_e2",), "mbconv_k3_e6"),
    ),
    strides=(8,),
    sizes=(64,),
    neck_widths=(16, 32),
    decoder_widths=(32,),
    decoder_depths=(1,),
    mlp_dims=(32,),
    trunk="inverted_same",
)
EVERY = SearchSpace(
    "every", (StageChoices(8, (16, 32), 1, OPS),), (8,), (8,), (64,), (16,), decoder_widths=(32,)
)


def table(space):
    """A made-up table: any positive numbers will do."""
    rng = random.Random(0)
    pieces = [*space_pieces(space), *space_decoders(space)]
    fit = LatencyFit(0.25, {"fine": 0.9, "coarse": 1.1, "frame": 0.7})
    return LatencyTable({}, {piece.key: rng.uniform(0.1, 1) for piece in pieces}, fit)


def image(batch=2, seed=0):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def lots(net, seed=0, paths=0, mode="gumbel", temperature=1.0):
    generator = torch.Generator().manual_seed(seed)
    return draw_lots(net.choice_logits(), temperature, generator, LotSettings(mode, paths))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("paths", [0, 2])
def test_a_hard_draw_is_the_drawn_network_bit_for_bit(seed, paths):
    torch.manual_seed(0)
    net = SearchSupernet(TOY).train()
    found = lots(net, seed, paths)
    fixed = {name: lot._replace(weights=None, options=(lot.chosen,)) for name, lot in found.items()}
    torch.testing.assert_close(net(image(), found), net(image(), fixed), rtol=0, atol=0)


def test_every_logit_gets_a_gradient_from_one_hard_draw_of_all_paths():
    torch.manual_seed(0)
    net = SearchSupernet(TOY).train()
    target = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    told = {name: torch.zeros(len(x), dtype=torch.bool) for name, x in net.choice_logits().items()}
    for seed in range(6):  # that a width matters is seen when a wide one is drawn
        net.zero_grad()
        (net(image(), lots(net, seed)) - target).square().mean().backward()
        for name, logits in net.choice_logits().items():
            told[name] |= logits.grad != 0
    assert all(one.all() for one in told.values()), told


def test_two_paths_compute_two_and_teach_two():
    net = SearchSupernet(TOY).train()
    found = lots(net, 3, paths=2)
    assert all(len(lot.options) == 2 and lot.chosen in lot.options for lot in found.values())
    net(image(), found).square().mean().backward()
    taught = net.logits["stage8_op0"].grad != 0
    assert taught.nonzero().flatten().tolist() == sorted(found["stage8.op0"].options)


@pytest.mark.parametrize("op", ["skip", *OPS])
def test_a_narrow_network_of_each_operation_is_the_supernets_path(op):
    torch.manual_seed(0)
    net = SearchSupernet(EVERY)
    vector = [0] * len(EVERY.choices)
    names = [c.name for c in EVERY.choices]
    vector[names.index("stage8.op0")] = EVERY.choices[names.index("stage8.op0")].options.index(op)
    one = EVERY.decode(vector)
    recalibrate(net, one, [image(4, 1)])
    ours = net.eval()(image(), net.lots_of(one))
    theirs = derived_encoder(net, one)(image(), None).embedding
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours.std() > 0.1


def test_a_narrow_attention_has_the_first_channels_of_queries_keys_and_values():
    full = SlicedModule(partial(build_operation, "linear_attention"), 32)
    theirs, ours = full.state((32,))["qkv.weight"], full.state((16,))["qkv.weight"]
    for i in range(3):
        assert torch.equal(ours[16 * i : 16 * i + 16], theirs[32 * i : 32 * i + 16, :16])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("space", [TOY, INVERTED], ids=lambda s: s.name)
def test_derived_networks_are_the_supernets_paths_in_training_and_evaluation(space, seed):
    torch.manual_seed(0)
    net = SearchSupernet(space)
    one = space.sample(random.Random(seed))
    encoder = derived_encoder(net, one)
    torch.testing.assert_close(
        net.train()(image(), net.lots_of(one)), encoder.train()(image(), None).embedding, rtol=1e-4, atol=1e-4
    )
    recalibrate(net, one, [image(4, 1), image(4, 2)])
    encoder = derived_encoder(net, one)
    assert encoder.stem[0][0].bn.running_var.std() > 0
    torch.testing.assert_close(
        net.eval()(image(), net.lots_of(one)), encoder(image(), None).embedding, rtol=1e-4, atol=1e-4
    )


def test_scale_and_shift_that_norms_were_given_count_in_training_and_stay():
    net = SearchSupernet(TOY).train()
    norm = net.stem.full[0][0].bn
    x = 5 * torch.randn(2, len(norm.weight), 8, 8) + 1
    plain = norm(x)
    norm.weight.fill_(3.0), norm.bias.fill_(-1.0)
    torch.testing.assert_close(norm(x), 3 * plain - 1)
    torch.testing.assert_close(norm.eval()(x), 3 * x / (1 + norm.eps) ** 0.5 - 1)
    assert not {id(norm.weight), id(norm.bias)} & {id(p) for p in net.weight_parameters()}
    one = TOY.smallest()
    one = dataclasses.replace(one, stages=(dataclasses.replace(one.stages[0], width=32), one.stages[1]))
    assert derived_encoder(net, one).stem[0][0].bn.weight.tolist() == [3.0] * len(norm.weight)


def test_training_leaves_the_statistics_alone():
    net = SearchSupernet(TOY).train()
    before = {name: value.clone() for name, value in net.named_buffers()}
    net(image(), lots(net))
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())


def test_weights_and_logits_are_apart():
    net = SearchSupernet(TOY)
    weights, logits = {id(p) for p in net.weight_parameters()}, {id(p) for p in net.arch_parameters()}
    assert not weights & logits
    assert weights | logits == {id(p) for p in net.parameters()}
    assert len(logits) == len(net.choice_logits()) == 8


@pytest.mark.parametrize(
    "space", [TOY, INVERTED, frames(SPACES["small"])[3], frames(SPACES["inherited"])[0]], ids=lambda s: s.name
)
@pytest.mark.parametrize("price", ["macs", "ms", "with decoder"])
def test_the_expected_cost_of_a_sure_choice_is_that_of_the_network(space, price):
    how = mac_price() if price == "macs" else latency_price(table(space), with_decoder=price != "ms")
    cost = ExpectedCost(space, how)
    for seed in range(5):
        one = space.sample(random.Random(seed))
        vector = space.encode(one)
        sure = {
            c.name: torch.nn.functional.one_hot(torch.tensor(i), len(c.options)).float()
            for c, i in zip(space.choices, vector, strict=True)
        }
        assert float(cost(sure)) == pytest.approx(how.whole(one), rel=1e-5)


def test_the_expected_cost_nears_that_of_the_likeliest_network_and_has_gradients():
    net, cost = SearchSupernet(TOY, seed=4), ExpectedCost(TOY, mac_price())
    for logits in net.arch_parameters():
        logits.data *= 1000
    exact = cost_of(argmax_architecture(net)).encoder.macs / 1e6
    errors = [abs(float(cost(net.probabilities(t)).detach()) - exact) for t in (3.0, 1.0, 0.1, 0.001)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 < errors[0]
    cost(net.probabilities()).backward()
    assert all(logits.grad.abs().sum() > 0 for logits in net.arch_parameters())


def test_the_likeliest_within_a_budget_is_what_trying_all_gives():
    net, cost = SearchSupernet(TOY, seed=4), ExpectedCost(TOY, mac_price())
    scores = {name: 1000 * x.detach() for name, x in net.choice_logits().items()}
    for name, logits in net.choice_logits().items():
        logits.data.copy_(scores[name])
    budget = 1.3 * cost.cheapest()
    best = -float("inf")
    for vector in _vectors([len(c.options) for c in TOY.choices]):
        if cost_of(TOY.decode(vector)).encoder.macs / 1e6 <= budget:
            named = {c.name: i for c, i in zip(TOY.choices, vector, strict=True)}
            best = max(best, sum(float(x.log_softmax(0)[named[n]]) for n, x in scores.items()))
    found = budgeted_architectures(net, cost, budget, count=5)
    assert len({one.id for one in found}) == 5
    assert all(cost_of(one).encoder.macs / 1e6 <= budget for one in found)
    chosen = {n: lot.chosen for n, lot in net.lots_of(found[0]).items()}
    likelihood = _likelihood_of_any_order(scores, TOY, found[0])
    assert likelihood == pytest.approx(best, abs=1e-3), chosen


def _likelihood_of_any_order(scores, space, architecture):
    """Of the likeliest vector that means an architecture: skips may stand anywhere."""
    return max(
        sum(
            float(x.log_softmax(0)[dict(zip([c.name for c in space.choices], v, strict=True))[n]])
            for n, x in scores.items()
        )
        for v in _vectors([len(c.options) for c in space.choices])
        if space.decode(v) == architecture
    )


def _vectors(sizes):
    import itertools

    return itertools.product(*(range(size) for size in sizes))


def test_without_preference_the_budget_is_spent():
    net, cost = SearchSupernet(TOY), ExpectedCost(TOY, mac_price())
    for logits in net.arch_parameters():
        logits.data.zero_()
    budget = 2 * cost.cheapest()
    assert cost_of(budgeted_architectures(net, cost, budget)[0]).encoder.macs / 1e6 > 0.8 * budget


def test_a_budget_below_the_smallest_network_is_refused():
    net, cost = SearchSupernet(TOY), ExpectedCost(TOY, mac_price())
    with pytest.raises(UsageError, match=r"no architecture of toy costs at most 0\.1 MMAC"):
        budgeted_architectures(net, cost, 0.1)


def test_frames_are_parts_of_the_space_and_narrowing_names_what_there_is():
    parts = frames(SPACES["small"])
    assert sum(part.count for part in parts) == SPACES["small"].count
    with pytest.raises(UsageError, match=r"leaves stem, stride, decoder\.depth open"):
        SearchSupernet(SPACES["small"])
    with pytest.raises(UsageError, match="stride is 4, expected one of 8, 16"):
        narrowed(SPACES["small"], stride=4)
    with pytest.raises(SpecError, match="paths are 1"):
        LotSettings(paths=1)
