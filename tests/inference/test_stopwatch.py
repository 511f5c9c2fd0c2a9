# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The stopwatch in each runtime, and a whole table of a real machine (slow)."""

import json
import platform

import numpy as np
import pytest
import torch
from torch import nn

from monai_effsam.cli.main import main
from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.inference.runtimes import RUNTIMES
from monai_effsam.inference.stopwatch import RuntimeStopwatch

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


def convolution(width):
    return nn.Sequential(nn.Conv2d(8, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)).eval()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_more_work_takes_longer(runtime):
    stopwatch = RuntimeStopwatch(runtime, threads=1, clock="cpu", rounds=5)
    x = torch.randn(1, 8, 64, 64)
    calls = [stopwatch.prepare(convolution(width), (x,)) for width in (8, 512)]
    small, large = stopwatch.turns(calls)
    assert len(small) == len(large) == 5
    assert 0 < 3 * np.median(small) < np.median(large)


def test_a_prepared_module_is_left_as_it_is():
    module = convolution(8)
    RuntimeStopwatch("torch", threads=1).prepare(module, (torch.zeros(1, 8, 8, 8),))
    assert isinstance(module[1], nn.BatchNorm2d)


def test_the_machine_is_told_without_names():
    machine = RuntimeStopwatch("onnxruntime", threads=1).machine
    assert set(machine) == {"cpu", "cores", "system", "runtime", "device", "threads", "clock", "version"}
    assert platform.node() not in json.dumps(machine)
    assert json.loads(json.dumps(machine)) == machine


def test_what_cannot_be_timed_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'openvino'"):
        RuntimeStopwatch("open_vino")
    with pytest.raises(UnknownNameError, match="clock 'sun'"):
        RuntimeStopwatch("torch", clock="sun")
    with pytest.raises(UsageError, match="threads are 2 on cpu, expected 1 on cpu"):
        RuntimeStopwatch("onnxruntime", threads=2, clock="cpu")


def test_no_gpu_is_no_silent_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device is 'cuda:0', expected one that torch"):
        RuntimeStopwatch("torch", "cuda:0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "INPUT is missing, expected pictures"),
        (["a.png", "--check", "30"], "--check and --clock: need a table. Give --table FILE"),
        (["a.png", "--table", "t.json"], "--table: measures no model"),
        (["--table", "t.json", "--check", "2"], "--check: is 2, expected at least 3"),
        (["--table", "nowhere/t.json"], "nowhere is no folder to write to"),
        (["--table", "t.json", "--space", "smal"], "Did you mean 'small'"),
        (["--table", "t.json", "--clock", "cpu", "--threads", "2"], "Give --threads 1"),
    ],
)
def test_wrong_words_are_answered_in_a_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["profile", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_table_of_this_machine(capsys, tmp_path):
    file = tmp_path / "table.json"
    words = ["profile", "--table", str(file), "--space", "tiny", "--threads", "1", "--clock", "cpu", "--json"]
    assert main([*words, "--rounds", "1", "--check", "12"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["measured"] == report["entries"] > 30
    assert report["check"]["kendall_tau"] > 0.5
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["measured"] == 0
    assert main([*words, "--runtime", "openvino"]) == 2
    assert "was measured with runtime 'onnxruntime', expected 'openvino'" in capsys.readouterr().err
