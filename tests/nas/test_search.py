# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Searchers on toys: what is useful is found, skip does not collapse, budgets hold, interruptions change nothing."""

import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_effsam.errors import DataError, UsageError
from monai_effsam.nas.search import (
    DifferentiableSearcher,
    DifferentiableSettings,
    EvolutionarySearcher,
    NsgaSearcher,
    RandomSearcher,
    SearchProblem,
    SupernetMaterial,
    SupernetTraining,
    collapse_signs,
)
from monai_effsam.nas.space import OPERATIONS, SearchSpace, StageChoices
from monai_effsam.nas.supernet import (
    ExpectedCost,
    LotSettings,
    SearchSupernet,
    argmax_architecture,
    mac_price,
)
from monai_effsam.networks.blocks.operations import ComputeCost, Operation

SMALL = {
    "sizes": (32,),
    "neck_widths": (16,),
    "decoder_widths": (16,),
    "decoder_depths": (1,),
    "mlp_dims": (32,),
}
TOY = SearchSpace(
    "toy",
    (StageChoices(8, (16,), 2, ("dwsep_k3", "fused_k3_e1")), StageChoices(16, (16, 32), 1, ("dwsep_k3",))),
    stems=(8,),
    strides=(8,),
    **SMALL,
)


@dataclass
class ToyBatch:
    image: torch.Tensor
    target: torch.Tensor

    def to(self, device):
        return self


class ToyBatches:
    """Batches that a fixed network labels; a pure function of seed and epoch. A rank sees its part of each."""

    def __init__(self, teacher, seed=0, size=8, count=5, rank=0, world=1, side=4):
        self.teacher, self.seed, self.size, self.count, self.epoch = teacher, seed, size, count, 0
        self.side = side
        self.part = slice(rank * size // world, (rank + 1) * size // world)

    def __len__(self):
        return self.count

    def __iter__(self):
        generator = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
        for _ in range(self.count):
            colours = torch.randn(self.size, 3, self.side, self.side, generator=generator)
            image = colours.repeat_interleave(8, 2).repeat_interleave(8, 3)
            with torch.no_grad():
                target = self.teacher(image)
            yield ToyBatch(image[self.part], target[self.part])


def mse(embedding, batch):
    return F.mse_loss(embedding, batch.target)


def random_teacher(image):
    return F.avg_pool2d(image, 8).repeat(1, 6, 1, 1)[:, :16].roll(1, 3)


def training(net, *, seed=0, folder=None, teacher=random_teacher, budget=100.0, batches=None, **settings):
    return SupernetTraining(
        net,
        ExpectedCost(net.space, mac_price()),
        budget,
        (batches or ToyBatches)(teacher, seed=1),
        (batches or ToyBatches)(teacher, seed=2),
        mse,
        DifferentiableSettings(**{"epochs": 4, "seed": seed, **settings}),
        folder=folder,
    )


def seeded(space, seed=0):
    torch.manual_seed(seed)
    return SearchSupernet(space, seed)


class Nothing(nn.Module):
    """Costs what `Something` costs, and adds nothing."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x):
        return x + 0 * self.weight


class Something(nn.Module):
    """Looks four cells to the left, where the rest of the network cannot."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x):
        return self.weight * x.roll(4, 3)


@pytest.fixture
def two_ops(monkeypatch):
    """A space whose slots take something useful, something useless of equal cost, or skip, which costs nothing."""
    for name, build in (("nothing", Nothing), ("something", Something)):
        price = lambda channels, height, width: ComputeCost(10**6, channels)  # noqa: E731
        monkeypatch.setitem(OPERATIONS, name, Operation(name, build, price))
    return SearchSpace(
        "two", (StageChoices(8, (16,), 1, ("nothing", "something")),), stems=(8,), strides=(8,), **SMALL
    )


def four_cells_left(image):
    """What no network can tell that does not look four cells to the left: the colours there, mixed and normalised."""
    colours = F.avg_pool2d(image, 8).roll(4, 3)
    mix = torch.randn(16, 3, 1, 1, generator=torch.Generator().manual_seed(3))
    mixed = F.conv2d(colours, mix)
    return (mixed - mixed.mean(1, keepdim=True)) / mixed.std(1, keepdim=True)


@pytest.mark.parametrize(
    "lots", [LotSettings("gumbel", 2), LotSettings("gumbel", 0), LotSettings("softmax")], ids=str
)
def test_of_two_operations_of_equal_cost_the_useful_one_is_chosen(two_ops, lots):
    net = seeded(two_ops)
    run = training(
        net,
        teacher=four_cells_left,
        batches=partial(ToyBatches, side=8),
        epochs=12,
        lots=lots,
        choice_rate=0.05,
        rate=1e-2,
    )
    run.run()
    p = net.probabilities()["stage8.op0"]
    assert p[1] > 0.5
    assert p[1] > 1.5 * p[0]


def test_a_free_skip_takes_all_without_guards_and_not_with_them(two_ops):
    found = {}
    guarded = {"warm_up": 0.25, "auxiliary": 1.0, "skip_dropout": 0.1, "hinge": True}
    bare = {"warm_up": 0.0, "auxiliary": 0.0, "skip_dropout": 0.0, "hinge": False}
    for name, guards in (("guarded", guarded), ("bare", bare)):
        net = seeded(two_ops)
        more = {
            "batches": partial(ToyBatches, side=8),
            "epochs": 12,
            "choice_rate": 0.05,
            "rate": 1e-2,
            "cost_weight": 3.0,
            "budget": 3.0,
        }
        training(net, teacher=four_cells_left, **more, **guards).run()
        found[name] = argmax_architecture(net).stages[0].ops
        assert bool(collapse_signs(net)) == (name == "bare")
    assert found == {"guarded": ("something",), "bare": ()}


def test_over_the_budget_the_mean_cost_falls_and_under_it_stays():
    found = {}
    for share in (0.8, 100.0):
        net, cost = seeded(TOY), ExpectedCost(TOY, mac_price())
        before = float(cost(net.probabilities()).detach())
        training(net, budget=share * before, epochs=8, warm_up=0.0, choice_rate=0.1, cost_weight=10.0).run()
        found[share] = float(cost(net.probabilities()).detach()) / before
    assert found[0.8] < 0.92
    assert found[100.0] > 0.96


def test_in_the_warm_up_the_logits_stay(tmp_path):
    net = seeded(TOY)
    before = [p.detach().clone() for p in net.arch_parameters()]
    weights = [p.detach().clone() for p in net.weight_parameters()]
    training(net, epochs=2, warm_up=0.99, folder=tmp_path).run()
    assert all(torch.equal(a, b) for a, b in zip(before[:-1], list(net.arch_parameters())[:-1], strict=True))
    assert sum(not torch.equal(a, b) for a, b in zip(weights, net.weight_parameters(), strict=True)) > 10


class Interrupted(ToyBatches):
    def __iter__(self):
        if self.seed == 1 and self.epoch == 2:
            raise KeyboardInterrupt
        yield from super().__iter__()


def test_an_interrupted_search_goes_the_same_way(tmp_path):
    whole, cut = seeded(TOY), seeded(TOY)
    training(whole, folder=tmp_path / "whole").run()
    with pytest.raises(KeyboardInterrupt):
        training(cut, folder=tmp_path / "cut", batches=Interrupted).run()
    again = seeded(TOY, seed=5)  # everything comes from the checkpoint
    training(again, folder=tmp_path / "cut").run(resume=True)
    ours, theirs = again.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    logs = [(tmp_path / name / "search.jsonl").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert len(logs[0].splitlines()) == 20
    with pytest.raises(UsageError, match="search with other settings"):
        training(seeded(TOY), folder=tmp_path / "cut", choice_rate=0.5).run(resume=True)


TWO_RANKS = """
import sys
sys.path.insert(0, sys.argv[1])
import torch, torch.distributed as dist
from test_search import TOY, ToyBatches, seeded, training
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
net = seeded(TOY)
training(net, epochs=2, warm_up=0.2, batches=lambda t, seed: ToyBatches(t, seed, rank=rank, world=world)).run()
if rank == 0: torch.save(net.state_dict(), sys.argv[2])
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_twice_the_batch(tmp_path):
    net = seeded(TOY)
    training(net, epochs=2, warm_up=0.2).run()
    (tmp_path / "ranks.py").write_text(TWO_RANKS)
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0"]
    words += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(tmp_path / "ranks.py")]
    subprocess.run([*words, str(Path(__file__).parent), str(tmp_path / "net.pt")], check=True, timeout=600)
    theirs = torch.load(tmp_path / "net.pt", weights_only=True)
    start = seeded(TOY).state_dict()
    for name, ours in net.state_dict().items():  # Adam makes rounding of small gradients as large as steps
        limit = 5e-3 if name.startswith("logits") else 1e-3
        torch.testing.assert_close(
            ours, theirs[name], rtol=0, atol=limit, msg=lambda m, name=name: f"{name}: {m}"
        )
    assert max((start[name] - theirs[name]).abs().max() for name in start if name.startswith("logits")) > 0.05


def like(architecture):
    """An objective that knows what it wants: as many plain 3x3 convolutions as the budget takes."""
    return sum(op == "fused_k3_e1" for stage in architecture.stages for op in stage.ops) - 0.01 * len(
        architecture.stages[-1].ops
    )


WIDE = SearchSpace(
    "wide",
    (
        StageChoices(8, (16, 32), 3, ("dwsep_k3", "fused_k3_e1", "mbconv_k3_e2")),
        StageChoices(16, (16, 32), 2, ("dwsep_k3", "fused_k3_e1", "dwsep_k5")),
    ),
    stems=(8,),
    strides=(8, 16),
    **SMALL,
)


def problem(**more):
    return SearchProblem(**{"space": WIDE, "price": mac_price(), "budget": 0.6, "objective": like, **more})


DISCRETE = (RandomSearcher(15), EvolutionarySearcher(40), NsgaSearcher(40))


@pytest.mark.parametrize("searcher", DISCRETE, ids=lambda s: s.name)
def test_discrete_searchers_keep_to_the_budget_and_repeat_themselves(searcher):
    if searcher.name == "nsga2":
        pytest.importorskip("optuna")
    found = searcher.search(problem())
    assert len(found) >= 10
    assert all(one.cost <= 0.6 for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert len({one.architecture.id for one in found}) == len(found)
    assert searcher.search(problem()) == found
    assert searcher.search(problem(seed=1)) != found


def test_evolution_finds_what_chance_does_not():
    best = [
        [searcher.search(problem(seed=seed))[0].score for seed in range(3)]
        for searcher in (RandomSearcher(40, least=0.0), EvolutionarySearcher(40))
    ]
    assert sum(best[1]) > sum(best[0])


@pytest.mark.parametrize("searcher", DISCRETE, ids=lambda s: s.name)
def test_nothing_is_judged_twice_after_an_interruption(searcher, tmp_path):
    if searcher.name == "nsga2":
        pytest.importorskip("optuna")
    judged = []

    def objective(architecture):
        if len(judged) == 7:
            raise KeyboardInterrupt
        judged.append(architecture.id)
        return like(architecture)

    book = tmp_path / "book.jsonl"
    with pytest.raises(KeyboardInterrupt):
        searcher.search(problem(objective=objective, book=book))
    with book.open("a") as file:
        file.write('{"id": "cut of')
    more = []
    found = searcher.search(problem(objective=lambda a: more.append(a.id) or like(a), book=book))
    assert found == searcher.search(problem())
    assert not set(more) & set(judged)
    with pytest.raises(UsageError, match=r"of another search \(other budget\)"):
        searcher.search(problem(book=book, budget=0.7))
    book.write_text("no book\n")
    with pytest.raises(DataError, match="is no book of scores"):
        searcher.search(problem(book=book))


def test_a_budget_below_the_smallest_network_is_told():
    with pytest.raises(UsageError, match=r"budget is 0.01 MMAC, expected at least 0\.3\d+ MMAC"):
        problem(budget=0.01)


def test_the_differentiable_searcher_judges_the_likeliest_within_the_budget(tmp_path):
    frames = []

    def material(frame):
        frames.append(frame.strides[0])
        stride = frame.strides[0]
        teacher = lambda image: F.avg_pool2d(image, stride).repeat(1, 6, 1, 1)[:, :16]  # noqa: E731
        return SupernetMaterial(ToyBatches(teacher, 1), ToyBatches(teacher, 2), mse)

    searcher = DifferentiableSearcher(material, DifferentiableSettings(epochs=2), tmp_path, top=3)
    one = replace(problem(), book=tmp_path / "book.jsonl")
    found = searcher.search(one)
    assert len(frames) == 1
    assert len(found) == 3
    assert all(r.cost <= 0.6 for r in found)
    assert all(r.architecture.stride == frames[0] for r in found)
    assert [r.score for r in found] == sorted((like(r.architecture) for r in found), reverse=True)
    assert DifferentiableSearcher(material, searcher.settings, tmp_path, top=3).search(one) == found


def test_thinning_finds_cheap_networks_in_a_space_of_dear_ones():
    least = ExpectedCost(problem().frames[0], mac_price()).cheapest()
    found = RandomSearcher(3, least=0.0).search(problem(budget=1.2 * least))
    assert len(found) == 3
    assert all(one.cost <= 1.2 * least for one in found)
