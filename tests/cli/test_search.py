# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam search`: a toy folder to a network that distils, interruptions, tables, and one line for every mistake."""

import hashlib
import json
import random
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from safetensors.torch import save_file

from monai_effsam.checkpoints import load_model
from monai_effsam.cli.main import main
from monai_effsam.inference.stopwatch import RuntimeStopwatch
from monai_effsam.nas.cost import LatencyFit, LatencyTable, cost_of, space_decoders, space_pieces
from monai_effsam.nas.search import supernet_training
from monai_effsam.nas.space import SPACES, Architecture, SearchSpace, StageChoices
from monai_effsam.networks.foreign import import_timm

pytest.importorskip("lmdb")

TOY = SearchSpace(
    "toy",
    (StageChoices(8, (16, 32), 1, ("dwsep_k3", "fused_k3_e1")), StageChoices(16, (32,), 1, ("dwsep_k3",))),
    stems=(8,),
    strides=(8, 16),
    sizes=(64,),
    neck_widths=(16,),
    decoder_depths=(1,),
    mlp_dims=(128,),
)


@pytest.fixture(autouse=True)
def toy_space(monkeypatch):
    monkeypatch.setitem(SPACES, "toy", TOY)


@pytest.fixture
def folder(tmp_path):
    """Nine noisy pictures, each a sequence of its own."""
    root = tmp_path / "in"
    root.mkdir()
    for number in range(9):
        noise = np.random.default_rng(number).integers(0, 256, (5, 7, 3), np.uint8)
        cv2.imwrite(str(root / f"p{number}.png"), cv2.resize(noise, (60, 40)))
    return root


def words(images, out, *more, budget="3MMAC"):
    short = ["--epochs", "2", "--judge-steps", "3", "--batch", "3", "--views", "1", "--top", "2"]
    given = ["search", "--budget", budget, "--space", "toy", "--images", str(images), "-o", str(out), *short]
    return [*given, "--teacher", "random", "--train-device", "cpu", "-q", *map(str, more)]


def ranked(out):
    return json.loads((out / "ranked.json").read_text())


def test_a_toy_folder_becomes_a_network_that_distils(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(words(folder, out)) == 0
    said = capsys.readouterr().out
    assert "views computed, 0 were there" in said
    assert said.count("judged ") == 4  # a probe of each of two frames, then two of one supernet
    best = Architecture.from_json(json.loads((out / "architecture.json").read_text()))
    assert best in TOY
    assert cost_of(best).encoder.macs <= 3e6
    assert best.id == ranked(out)[0]["id"]
    rows = [json.loads(line) for line in (out / "search.jsonl").read_text().splitlines()]
    assert {"frame", "step", "loss", "cost", "entropy"} <= rows[0].keys()
    assert "choice_loss" in rows[-1]
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2
    assert best.id in page
    given = [
        "distill",
        "--teacher",
        "random",
        "--student",
        str(out / "architecture.json"),
        "--images",
        str(folder),
    ]
    more = [
        "-o",
        str(tmp_path / "student"),
        "--epochs",
        "1",
        "--batch",
        "4",
        "--views",
        "1",
        "--device",
        "cpu",
        "-q",
    ]
    assert main([*given, *more]) == 0
    network = load_model(tmp_path / "student").network
    assert network.image_encoder.architecture == best


def test_an_interrupted_search_goes_on_to_the_same_end(folder, tmp_path, monkeypatch, capsys):
    assert main(words(folder, tmp_path / "whole", "--stride", 8)) == 0
    learn, done = supernet_training.SupernetTraining._learn, []

    def interrupted(self, *args):
        done.append(0)
        if len(done) == 2:  # in the second epoch
            raise KeyboardInterrupt
        return learn(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(supernet_training.SupernetTraining, "_learn", interrupted)
        assert main(words(folder, tmp_path / "cut", "--stride", 8)) == 130
    assert main(words(folder, tmp_path / "cut", "--stride", 8)) == 2
    assert "holds a search already. Give --resume" in capsys.readouterr().err
    assert main(words(folder, tmp_path / "cut", "--stride", 8, "--resume")) == 0
    assert ranked(tmp_path / "cut") == ranked(tmp_path / "whole")
    rows = [(tmp_path / name / "search.jsonl").read_text() for name in ("cut", "whole")]
    assert rows[0] == rows[1]
    assert main(words(folder, tmp_path / "cut", "--stride", 16, "--resume")) == 2
    assert "is of another search (other fixed)" in capsys.readouterr().err


@pytest.fixture
def table(tmp_path):
    """Writes a table of made-up times, of this machine but for what is given."""

    def write(**other):
        machine = RuntimeStopwatch("torch", "cpu", 1).machine | other
        rng = random.Random(0)
        entries = {p.key: rng.uniform(0.1, 0.2) for p in (*space_pieces(TOY), *space_decoders(TOY))}
        path = tmp_path / "table.json"
        LatencyTable(machine, entries, LatencyFit(0.1, nets=24), "toy").save(path)
        return path

    return write


def test_a_table_of_this_machine_is_used_and_that_of_another_refused(folder, tmp_path, table, capsys):
    more = ["--searcher", "random", "--count", 2, "--runtime", "torch", "--threads", 1, "--table"]
    assert main(words(folder, tmp_path / "run", *more, table(), budget="1.2ms")) == 0
    assert all(one["cost"] <= 1.2 for one in ranked(tmp_path / "run"))
    assert main(words(folder, tmp_path / "other", *more, table(cpu="abacus"), budget="1.2ms")) == 2
    err = capsys.readouterr().err
    assert "was measured with cpu 'abacus', expected" in err
    assert len(err.strip().splitlines()) == 1


def test_a_dry_run_tells_the_time_and_leaves_nothing(folder, tmp_path, capsys):
    assert main(words(folder, tmp_path / "run", "--dry-run", budget="15ms")) == 0
    said = capsys.readouterr().out
    assert [line.split(":")[0].strip() for line in said.splitlines()] == [
        "table", "teacher", "judging", "supernets", "whole",
    ]  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_dry_run_takes_times_that_are_there_and_measures_none(folder, tmp_path, table, capsys):
    more = ["--dry-run", "--with-decoder", "--runtime", "torch", "--threads", 1]
    assert main(words(folder, tmp_path / "run", *more, budget="15ms")) == 0
    assert "pieces and networks to measure first" in capsys.readouterr().out
    file = table()
    before = file.read_bytes()
    assert main(words(folder, tmp_path / "run", *more, "--table", file, budget="0.1ms")) == 2
    assert "budget is 0.1 ms, expected at least" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_without_a_table_this_machine_is_measured_into_the_run(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        RuntimeStopwatch, "turns", lambda _, calls: [[0.1 + 0.01 * i] for i, _ in enumerate(calls)]
    )
    more = ["--searcher", "random", "--count", 1, "--runtime", "torch", "--threads", 1]
    assert main(words(folder, tmp_path / "run", *more, budget="15ms")) == 0
    table = LatencyTable.load(tmp_path / "run" / "table.json")
    assert table.machine["runtime"] == "torch"
    assert not table.missing([*space_pieces(TOY), *space_decoders(TOY)])
    (best,) = ranked(tmp_path / "run")
    assert best["cost"] == pytest.approx(
        table.predict(Architecture.from_json(best["architecture"])).encoder, abs=1e-4
    )


@pytest.mark.parametrize(
    ("more", "budget", "said"),
    [
        ([], "0.1MMAC", "budget is 0.1 MMAC, expected at least 1.33 MMAC"),
        ([], "soon", "--budget is 'soon', expected a positive time such as 15ms"),
        (["--searcher", "rendom"], "3MMAC", "searcher 'rendom' is unknown"),
        (["--stride", "4"], "3MMAC", "stride is 4, expected one of 8, 16"),
        (["--epochs", "0"], "3MMAC", "--epochs is 0, expected at least 1"),
        (["--with-decoder"], "3MMAC", "is of MACs, expected a time"),
    ],
)
def test_a_mistake_is_one_line(folder, tmp_path, capsys, more, budget, said):
    assert main(words(folder, tmp_path / "run", *more, budget=budget)) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_too_few_pictures_and_an_unknown_operation_are_told(folder, tmp_path, capsys):
    for path in list(folder.iterdir())[2:]:
        path.unlink()
    assert main(words(folder, tmp_path / "run")) == 1
    assert "the pictures are of 2 patients or sequences, expected at least 3" in capsys.readouterr().err
    plain = TOY.largest().to_json()
    plain["stages"][0]["ops"] = ["dwsep_k4"]
    (tmp_path / "architecture.json").write_text(json.dumps(plain))
    given = ["distill", "--teacher", "random", "--student", str(tmp_path / "architecture.json")]
    assert main([*given, "--images", str(folder), "-o", str(tmp_path / "student"), "-q"]) == 1
    err = capsys.readouterr().err
    assert "architecture.json: Architecture: stage at stride 8: operation 'dwsep_k4' is unknown" in err
    assert len(err.strip().splitlines()) == 1


INVERTED = SearchSpace(
    "inverted",
    (
        StageChoices(4, (16, 24), 1, ("mbconv_k3_e2", "dwsep_k3"), "mbconv_k3_e2"),
        StageChoices(8, (24,), 1, ("mbconv_k3_e2",), "mbconv_k3_e2"),
        StageChoices(16, (32,), 1, ("mbconv_k3_e2",), "mbconv_k3_e2"),
        StageChoices(16, (48,), 0, (), "mbconv_k3_e2"),
    ),
    strides=(8,),
    sizes=(64,),
    neck_widths=(16,),
    decoder_depths=(1,),
    mlp_dims=(128,),
    trunk="inverted_same",
)


NETWORK = ("--inherit-network", "mobilenetv2_100")


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file of MobileNetV2's, at random; the space can inherit from it."""
    monkeypatch.setitem(SPACES, "inverted", INVERTED)
    network = import_timm().create_model("mobilenetv2_100", num_classes=0)
    save_file(network.state_dict(), tmp_path / "trunk.safetensors")
    return tmp_path / "trunk.safetensors"


def test_networks_inherit_in_the_search_and_in_the_distillation(folder, weights, tmp_path, capsys):
    given = ["--space", "inverted", "--inherit", weights, *NETWORK]
    assert main(words(folder, tmp_path / "run", *given, budget="9MMAC")) == 0
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert f"inherits: mobilenetv2_100, sha256 {digest[:12]}" in capsys.readouterr().out
    assert f"inherits mobilenetv2_100 {digest}" in (tmp_path / "run" / "plan.json").read_text()
    assert f"weights of mobilenetv2_100, sha256 {digest}" in (tmp_path / "run" / "report.html").read_text()
    best = tmp_path / "run" / "architecture.json"
    assert json.loads(best.read_text())["trunk"] == "inverted"  # pads as the network does
    given = ["distill", "--teacher", "random", "--student", str(best), "--images", str(folder), "--inherit"]
    more = ["--epochs", "1", "--batch", "4", "--views", "1", "--device", "cpu", "-q", "-o"]
    assert main([*given, str(weights), *NETWORK, *more, str(tmp_path / "student")]) == 0
    card = json.loads((tmp_path / "student" / "model.json").read_text())
    assert card["inherited"]["sha256"] == digest
    assert card["inherited"]["network"] == "mobilenetv2_100"
    assert 0.1 < card["inherited"]["share"] < 1
    assert card["inherited"]["blocks"]["stem"] == 1.0
    assert card["recipe"]["inherit"] == f"mobilenetv2_100 {digest}"


def test_supernets_and_judged_networks_begin_otherwise_than_without(folder, weights, tmp_path, monkeypatch):
    monkeypatch.setitem(SPACES, "inverted", replace(INVERTED, trunk="inverted"))
    given, heir = ["--space", "inverted"], ["--inherit", weights, *NETWORK]
    for name, more in (("bare", []), ("heir", heir)):
        assert main(words(folder, tmp_path / name, *given, *more, budget="9MMAC")) == 0
        few = ["--searcher", "random", "--count", 1]
        assert main(words(folder, tmp_path / f"{name} drawn", *given, *few, *more, budget="9MMAC")) == 0
    logs = [(tmp_path / name / "search.jsonl").read_text().splitlines()[0] for name in ("bare", "heir")]
    losses = [json.loads(line)["loss"] for line in logs]
    assert abs(losses[0] - losses[1]) > 1e-4
    (bare,), (heir,) = (ranked(tmp_path / f"{name} drawn") for name in ("bare", "heir"))
    assert bare["id"] == heir["id"]
    assert abs(bare["score"] - heir["score"]) > 1e-5


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--inherit", "no.safetensors"], "--inherit no.safetensors: no such file"),
        (["--inherit-network", "mobilenetv2_100"], "is given without --inherit FILE, expected its weights"),
        (["--inherit", "FILE"], "tensors of tf_efficientnet_lite0, such as"),
        (["--inherit", "FILE", "--inherit-network", "efficientnet_b0"], "has squeeze-excitation, expected"),
        (
            ["--inherit", "FILE", "--inherit-network", "mobilenetv22"],
            "inherit from 'mobilenetv22' is unknown",
        ),
    ],
)
def test_what_cannot_be_inherited_is_one_line(folder, weights, tmp_path, capsys, more, said):
    more = [str(weights) if word == "FILE" else word for word in more]
    assert main(words(folder, tmp_path / "run", *more)) in {1, 2}
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_only_searched_students_inherit(folder, weights, tmp_path, capsys):
    given = ["distill", "--teacher", "random", "--student", "mobilenetv3_small_050", "--images", str(folder)]
    more = ["--inherit", str(weights), *NETWORK, "-o", str(tmp_path / "student"), "-q"]
    assert main([*given, *more]) == 2
    err = capsys.readouterr().err
    assert "its encoder is 'timm_pyramid', which inherits nothing from mobilenetv2_100" in err
    assert not (tmp_path / "student" / "model.pt").exists()


TWO_PROCESSES = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("toy", sys.argv[1])
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)
toy.SPACES["toy"] = toy.TOY
sys.exit(toy.main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_two_processes_of_torchrun_find_what_one_does(folder, tmp_path):
    for number in range(9, 24):
        noise = np.random.default_rng(number).integers(0, 256, (5, 7, 3), np.uint8)
        cv2.imwrite(str(folder / f"p{number}.png"), cv2.resize(noise, (60, 40)))
    more = ("--stride", 8, "--batch", 4)
    assert main(words(folder, tmp_path / "one", *more)) == 0
    (tmp_path / "run.py").write_text(TWO_PROCESSES)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    start += ["--rdzv-endpoint=localhost:0", str(tmp_path / "run.py"), __file__]
    subprocess.run([*start, *words(folder, tmp_path / "two", *more)], check=True, timeout=600)
    first, second = (ranked(tmp_path / name) for name in ("one", "two"))
    assert [one["id"] for one in first] == [one["id"] for one in second]
    assert [one["score"] for one in first] == pytest.approx([one["score"] for one in second], rel=1e-3)
