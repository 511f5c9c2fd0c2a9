# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Search spaces: every vector means an architecture, every architecture has one vector, and they are counted right."""

import itertools
import random
from dataclasses import replace

import pytest

from monai_effsam.errors import DataError, SpecError, UnknownNameError, UsageError
from monai_effsam.nas.cost import cost_of
from monai_effsam.nas.space import (
    SPACES,
    Architecture,
    SearchSpace,
    StageChoices,
    find_space,
    read_architecture,
    write_architecture,
)

TOY = SearchSpace(
    "toy",
    (StageChoices(4, (16,), 1, ("dwsep_k3",)), StageChoices(8, (16, 32), 2, ("dwsep_k3", "fused_k3_e1"))),
    stems=(4, 8),
    strides=(4, 8),
    neck_kinds=("separable", "dense"),
)


@pytest.fixture(params=[TOY, *SPACES.values()], ids=lambda space: space.name)
def space(request):
    return request.param


def test_the_toy_is_counted_as_by_hand():
    # stem 4: (1 + 1) * 2 * (1 + 2 + 4) nets on 2 grids; stem 8: 2 * 7 on one; two necks each
    assert TOY.count == (2 * 2 * 7 * 2 + 2 * 7) * 2


def test_all_vectors_mean_all_architectures():
    ranges = [range(len(choice.options)) for choice in TOY.choices]
    found = [TOY.decode(vector) for vector in itertools.product(*ranges)]
    assert len(set(found)) == TOY.count
    assert all(TOY.decode(TOY.encode(one)) == one for one in found)
    assert len({TOY.encode(one) for one in found}) == TOY.count


def test_samples_come_back_from_their_vector_and_repeat(space):
    found = [space.sample(random.Random(seed)) for seed in range(30)]
    assert [space.decode(space.encode(one)) for one in found] == found
    assert [space.sample(random.Random(seed)) for seed in range(30)] == found
    assert len(set(found)) > 5


def test_samples_have_every_depth_alike():
    rng = random.Random(0)
    depths = [len(SPACES["small"].sample(rng).stages[-1].ops) for _ in range(500)]
    assert all(60 < depths.count(depth) < 140 for depth in range(5))


def test_mutants_are_others_nearby(space):
    rng = random.Random(1)
    for _ in range(30):
        one = space.sample(rng)
        other = space.mutate(one, rng)
        assert other != one
        space.validate(other)


def test_a_space_of_one_has_no_mutant():
    lone = SearchSpace("lone", (StageChoices(8, (16,), 0, ()),), stems=(8,), strides=(8,))
    one = lone.sample(random.Random(0))
    assert lone.count == 1
    assert lone.mutate(one, random.Random(0)) == one


def test_children_have_their_genes_from_either_parent(space):
    rng = random.Random(2)
    first, second = space.sample(rng), space.sample(rng)
    parents = [space.encode(first), space.encode(second)]
    for _ in range(20):
        child = space.crossover(first, second, rng)
        space.validate(child)
        assert child.neck.width in {first.neck.width, second.neck.width}
    assert space.crossover(first, first, rng) == first
    assert len(parents[0]) == len(space.choices)


def test_the_extremes_are_in_the_space_and_cost_most_and_least(space):
    rng = random.Random(3)
    least, most = (cost_of(one) for one in (space.smallest(), space.largest()))
    assert {space.smallest(), space.largest()} == {
        one for one in (space.smallest(), space.largest()) if one in space
    }
    for found in (cost_of(space.sample(rng)) for _ in range(50)):
        assert least.encoder.macs <= found.encoder.macs <= most.encoder.macs
        assert least.decoder.macs <= found.decoder.macs <= most.decoder.macs


def test_strangers_are_told_by_what_differs():
    stranger = replace(TOY.sample(random.Random(0)), size=512)
    assert stranger not in TOY
    with pytest.raises(UsageError, match=r"toy: size of \w+ is 512, expected one of 256"):
        TOY.validate(stranger)
    longer = SPACES["small"].sample(random.Random(5))
    with pytest.raises(UsageError, match="SearchSpace tiny"):
        SPACES["tiny"].validate(longer)


@pytest.mark.parametrize("vector", [[], [0] * 9 + [5], [-1] + [0] * 20])
def test_wrong_vectors_are_refused(vector):
    with pytest.raises(UsageError, match="SearchSpace toy: vector is"):
        TOY.decode(vector)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neck_widths": ()}, r"neck.width has options \(\), expected some"),
        ({"decoder_depths": (1, 1)}, "each once"),
        ({"stems": (8,)}, "the finest among them"),
        ({"stems": (4, 16)}, "expected strides of stages"),
        ({"strides": (4,)}, "expected one no finer than stem 8"),
        ({"strides": (8, 32)}, "stride is 32, expected that of a stage"),
        ({"neck_widths": (64, 65)}, "width of the neck is 65"),
        ({"stages": (StageChoices(4, (16,), 1, ("skip",)), TOY.stages[1])}, "no skip"),
        ({"stages": (StageChoices(4, (16,), 1, ("global_attention",)), TOY.stages[1])}, "reference"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_spaces_that_mean_nothing_are_refused(options, message):
    with pytest.raises((SpecError, UnknownNameError), match=message):
        replace(TOY, **options)


def test_widths_must_suit_all_operations_of_a_stage():
    stages = (TOY.stages[0], StageChoices(8, (16, 24), 2, ("dwsep_k3", "grouped_k3")))
    with pytest.raises(SpecError, match="for grouped_k3, is 24, expected a positive multiple of 16"):
        replace(TOY, stages=stages)


def test_the_largest_inherited_network_has_the_layers_of_efficientnet_lite0():
    most = SPACES["inherited"].largest()
    assert [(s.stride, s.width, s.entry[7:], len(s.ops)) for s in most.stages] == [
        (4, 24, "k3_e6", 1),
        (8, 40, "k5_e6", 1),
        (16, 80, "k3_e6", 2),
        (16, 112, "k5_e6", 2),
        (32, 192, "k5_e6", 3),
    ]
    assert all(op == stage.entry for stage in most.stages for op in stage.ops)
    names = [choice.name for choice in SPACES["inherited"].choices]
    assert {"stage16.width", "stage16b.width", "stage16b.op1"} <= set(names)


def test_a_trunk_of_another_kind_is_a_stranger():
    one = SPACES["inherited"].smallest()
    with pytest.raises(
        UsageError, match=r"trunk of \w+ is inverted with entries .*, expected inverted_same with"
    ):
        SPACES["inherited"].validate(replace(one, trunk="inverted"))
    other = replace(one, stages=(replace(one.stages[0], entry="mbconv_k3_e2"), *one.stages[1:]))
    assert other not in SPACES["inherited"]


def test_spaces_have_names():
    assert find_space("tiny") is SPACES["tiny"]
    with pytest.raises(UnknownNameError, match=r"search space 'smal' is unknown.* Did you mean 'small'"):
        find_space("smal")


def test_files_are_a_round_trip(tmp_path):
    one = TOY.sample(random.Random(0))
    write_architecture(one, tmp_path / "architecture.json")
    assert read_architecture(tmp_path / "architecture.json") == one
    assert [path.name for path in tmp_path.iterdir()] == ["architecture.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "expected an object"),
        ('{"stages": [{"stride": 8, "width": 16, "ops": ["conv"]}]}', "operation 'conv' is unknown"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, message):
    file = tmp_path / "architecture.json"
    file.write_text(text)
    with pytest.raises(DataError, match=rf"architecture\.json: .*{message}"):
        read_architecture(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_architecture(tmp_path / "none.json")
    assert isinstance(TOY.largest(), Architecture)
