# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What architectures cost: closed forms against the built network, tables against a clock that follows a rule."""

import json
import random
from dataclasses import replace

import pytest
import torch

from monai_effsam.errors import DataError, UsageError
from monai_effsam.metrics.complexity import count_macs, count_parameters
from monai_effsam.nas.cost import (
    LatencyFit,
    LatencyTable,
    build_promptable,
    check_table,
    cost_of,
    decoder_piece,
    encoder_pieces,
    fit_table,
    measure_encoders,
    measure_table,
    predict,
    prediction_quality,
    sampled,
    space_decoders,
    space_pieces,
)
from monai_effsam.nas.space import (
    SPACES,
    Architecture,
    DecoderShape,
    NeckShape,
    SearchSpace,
    StageChoices,
    StageShape,
)
from monai_effsam.networks.encoders import SearchedEncoder

TOY = SearchSpace(
    "toy",
    (
        StageChoices(8, (16, 32), 2, ("dwsep_k3", "fused_k3_e1")),
        StageChoices(16, (32,), 2, ("dwsep_k3", "mbconv_k3_e2")),
    ),
    stems=(8,),
    strides=(8, 16),
    sizes=(64,),
    neck_widths=(16,),
    decoder_widths=(32,),
    decoder_depths=(1,),
    mlp_dims=(32,),
)
CALL_MS, MS_A_MMAC = 0.5, 0.1
"""The rule of the clock below: every call costs the first, and the second for each million MACs."""


class RuleClock:
    """A stopwatch that knows; it may be told to break off."""

    def __init__(self, machine=None, lasts=10**6):
        self.machine = machine or {"cpu": "abacus", "runtime": "rule", "threads": 1}
        self.lasts = lasts

    def prepare(self, graph, inputs):
        return lambda: count_macs(lambda: graph(*inputs))

    def turns(self, calls):
        self.lasts -= 1
        if self.lasts < 0:
            raise KeyboardInterrupt
        return [[CALL_MS + MS_A_MMAC * call() / 1e6] * 3 for call in calls]


def whole_decoder(network):
    """As the exported graph, but in one picture's own terms."""

    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, embedding, points, labels):
            return self.network.mask_decoder.output_upscaling(embedding)

    return Graph()


def measured(tmp_path, clock=None, pieces=None):
    clock = clock or RuleClock()
    table, file = LatencyTable(clock.machine, space="toy"), tmp_path / "table.json"
    pieces = pieces or [*space_pieces(TOY), *space_decoders(TOY)]
    count = measure_table(table, pieces, clock, file, decoder_graph=whole_decoder)
    return table, file, count


@pytest.mark.parametrize("name", SPACES)
def test_encoders_cost_what_their_pieces_do(name):
    space, rng = SPACES[name], random.Random(0)
    for one in [space.sample(rng) for _ in range(2)]:
        one = replace(one, size=64)
        encoder = SearchedEncoder(architecture=one).eval()
        found = count_macs(lambda encoder=encoder: encoder(torch.zeros(1, 3, 64, 64), None))
        for stage in one.stages:  # see the test of the operations
            found += stage.ops.count("msa_conv_k3") * 18 * stage.width * (64 // stage.stride) ** 2
        assert cost_of(one).encoder == (found, count_parameters(encoder))


@pytest.mark.parametrize("shape", [DecoderShape(256, 2, 1024), DecoderShape(64, 3, 96)])
@pytest.mark.parametrize(("stride", "drawn"), [(8, True), (16, True), (16, False)])
def test_decoders_cost_what_the_network_does(shape, stride, drawn):
    one = Architecture((StageShape(8, 16), StageShape(16, 16)), stride=stride, size=64, decoder=shape)
    network = build_promptable(one, drawn=drawn).eval()
    encoded = network.encode(torch.zeros(1, 3, 64, 64))
    found = count_macs(lambda: network.decode(encoded, boxes=torch.tensor([[[3.0, 4.0, 9.0, 9.0]]])))
    size = count_parameters(network.mask_decoder) + count_parameters(network.prompt_encoder)
    assert cost_of(one, drawn=drawn).decoder == (found, size)


@pytest.mark.parametrize("space", [TOY, *SPACES.values()], ids=lambda space: space.name)
def test_a_space_has_all_pieces_of_its_architectures_and_no_others(space):
    rng, known = random.Random(0), space_pieces(space)
    found = [space.sample(rng) for _ in range(300)]
    used = {piece for one in found for piece in encoder_pieces(one)}
    assert used <= set(known)
    assert len({piece.key for piece in known}) == len(known)
    assert {decoder_piece(one) for one in found} <= set(space_decoders(space))
    if space is TOY:
        assert used == set(known)


def test_references_are_entries_only():
    more = {p.name for p in space_pieces(TOY, references=True)} - {p.name for p in space_pieces(TOY)}
    assert more == {"window_attention_w8", "global_attention"}


def test_entries_are_free_of_what_a_call_costs(tmp_path):
    table, _, count = measured(tmp_path)
    assert count == len(table.entries) == len(space_pieces(TOY)) + len(space_decoders(TOY))
    for piece in space_pieces(TOY):
        assert table.ms(piece) == pytest.approx(MS_A_MMAC * piece.cost.macs / 1e6, rel=1e-4)


def test_fit_finds_what_a_call_costs(tmp_path):
    table, _, _ = measured(tmp_path)
    nets, clock = sampled(TOY, 12, 1), RuleClock()
    table.entries = {key: value / 2 for key, value in table.entries.items()}  # as if pieces alone were faster
    fit_table(table, nets, measure_encoders(nets, clock))
    assert table.fit.overhead_ms == pytest.approx(CALL_MS, rel=0.05)
    assert table.fit.nets == 12
    others = sampled(TOY, 9, 2)
    found = check_table(table, others, times := measure_encoders(others, clock, at_once=4))
    assert found["kendall_tau"] > 0.99
    assert found["median_error"] < 0.01
    assert table.fit.check == found
    assert predict(others[0], table).encoder == pytest.approx(times[0], rel=0.02)


def test_predictions_add_up(tmp_path):
    table, _, _ = measured(tmp_path)
    table.fit = LatencyFit(2.0, {"fine": 1.0, "coarse": 3.0, "frame": 0.5}, nets=9)
    one = Architecture(
        (StageShape(8, 16, ("dwsep_k3",)), StageShape(16, 32, ())),
        16,
        64,
        NeckShape(16),
        DecoderShape(32, 1, 32),
    )
    pieces = encoder_pieces(one)
    assert [piece.kind for piece in pieces] == ["stem", "op", "entry", "lateral", "head"]
    expected = 2.0 + sum(table.ms(p) * (3.0 if p.kind == "op" else 0.5) for p in pieces)
    found = table.predict(one)
    assert found.encoder == pytest.approx(expected)
    assert found.decoder == table.ms(decoder_piece(one))
    assert table.predict(one, drawn=False).decoder == table.ms(decoder_piece(one, drawn=False))
    assert decoder_piece(one).key == "decoder/drawn/c32/d1/m32/4x4"
    assert found.total == pytest.approx(found.encoder + found.decoder)
    assert sum(table.expected_ms(p) for p in pieces) == pytest.approx(expected - 2.0)


def test_interrupted_measuring_is_taken_up(tmp_path):
    file, clock = tmp_path / "table.json", RuleClock(lasts=5)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, clock)
    table = LatencyTable.load(file)
    assert len(table.entries) == 5
    before, pieces, done = dict(table.entries), space_pieces(TOY), []
    count = measure_table(table, pieces, RuleClock(), file, decoder_graph=whole_decoder, on_piece=done.append)
    assert count == len(done) == len(pieces) - 5
    assert before.items() <= table.entries.items()
    assert measure_table(table, pieces, RuleClock(lasts=0), file, decoder_graph=whole_decoder) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


def test_files_are_a_round_trip(tmp_path):
    table, file, _ = measured(tmp_path, pieces=space_pieces(TOY)[:4])
    table.fit = LatencyFit(1.5, {"fine": 1.0, "coarse": 2.0, "frame": 0.5}, 9, {"kendall_tau": 0.9})
    table.save(file)
    again = LatencyTable.load(file)
    assert again.fit == table.fit
    assert again.machine == table.machine
    assert again.space == "toy"
    assert again.entries == pytest.approx(table.entries, abs=1e-6)


def test_an_unknown_piece_is_refused_with_the_remedy():
    table = LatencyTable({})
    with pytest.raises(
        UsageError, match=r"no entry 'stem/s8/c16/64x64'.*`effsam profile --table FILE --space NAME`"
    ):
        table.predict(Architecture((StageShape(8, 16),), 8, 64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpu": "slide rule"}, "cpu 'abacus', expected 'slide rule'"),
        ({"runtime": "openvino"}, "runtime 'rule', expected 'openvino'"),
        ({"threads": 2}, "threads '1', expected '2'"),
        ({"gpu": "H"}, "gpu 'None', expected 'H'"),
    ],
)
def test_a_table_of_another_machine_is_refused(tmp_path, changes, message):
    table, file = LatencyTable(RuleClock().machine), tmp_path / "table.json"
    other = RuleClock({**table.machine, **changes})
    with pytest.raises(UsageError, match=rf"table\.json: was measured with {message}.*another file"):
        measure_table(table, space_pieces(TOY), other, file, decoder_graph=whole_decoder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("{}", "is no latency table of format 1"), ('{"format": 2}', "is no .*format 2")],
)
def test_damaged_tables_are_named(tmp_path, text, message):
    file = tmp_path / "table.json"
    with pytest.raises(DataError, match=r"cannot be read.*effsam profile --table"):
        LatencyTable.load(file)
    file.write_text(text)
    with pytest.raises(DataError, match=rf"table\.json: {message}"):
        LatencyTable.load(file)


@pytest.mark.parametrize(
    "spoil",
    [lambda c: c["fit"]["factors"].pop("fine"), lambda c: c["entries_ms"].update({"stem/s8/c16/64x64": -1})],
    ids=["factor", "time"],
)
def test_spoilt_tables_are_refused(tmp_path, spoil):
    file = tmp_path / "table.json"
    LatencyTable({}, {"stem/s8/c16/64x64": 1.0}).save(file)
    assert LatencyTable.load(file).entries
    content = json.loads(file.read_text())
    spoil(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="is no latency table of format 1"):
        LatencyTable.load(file)


def test_quality_of_predictions_by_hand():
    found = prediction_quality([1.0, 2.0, 3.0, 5.0], [1.0, 2.5, 2.4, 10.0])
    assert found["kendall_tau"] == pytest.approx(2 / 3, abs=1e-4)  # one pair of six is the wrong way round
    assert found["median_error"] == pytest.approx((0.2 + 0.25) / 2)


def test_too_few_networks_are_refused():
    with pytest.raises(UsageError, match="3 networks, expected at least 8"):
        fit_table(LatencyTable({}), sampled(TOY, 3, 0), [1.0] * 3)


def test_random_architectures_repeat_and_differ():
    assert sampled(TOY, 10, 0) == sampled(TOY, 10, 0)
    assert len({one.id for one in sampled(TOY, 10, 0)}) == 10
    lone = SearchSpace("lone", (StageChoices(8, (16,), 0, ()),), stems=(8,), strides=(8,))
    assert len(sampled(lone, 10, 0)) == 1


def test_tables_are_plain_json(tmp_path):
    _, file, _ = measured(tmp_path, pieces=space_pieces(TOY)[:4])
    content = json.loads(file.read_text())
    assert set(content) == {"format", "space", "machine", "fit", "entries_ms"}
    assert "op/dwsep_k3/c16/8x8" in content["entries_ms"]
