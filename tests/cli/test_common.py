# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Options that all commands share, and the device check."""

import argparse

import pytest
import torch

from monai_effsam.cli.common import add_options, check_device
from monai_effsam.errors import UnknownNameError, UsageError


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_auto_is_the_cpu_where_there_is_no_gpu(no_gpu):
    assert check_device("auto") == "cpu"


def test_auto_and_cuda_are_the_first_gpu(two_gpus):
    assert [check_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:0",
        "cuda:0",
        "cuda:1",
        "cpu",
    ]


def test_auto_takes_apples_gpu(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert check_device("auto") == "mps"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "gpu"])
def test_a_device_that_is_not_there_is_never_a_silent_cpu_run(no_gpu, name):
    with pytest.raises(UsageError, match=f"device is '{name}', expected one that torch .* sees: cpu"):
        check_device(name)


def test_a_required_option_must_be_given():
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, "out", "overwrite", required=("out",))
    args = parser.parse_args(["--out", "there"])
    assert (str(args.out), args.overwrite) == ("there", False)
    assert next(action for action in parser._actions if action.dest == "out").required


def test_an_option_that_is_not_shared_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'device'"):
        add_options(argparse.ArgumentParser(), "devise")


@pytest.mark.parametrize("text", ["-1", "x", "4294967296", "1.5"])
def test_a_seed_that_no_generator_takes_is_refused(text):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, "seed")
    with pytest.raises(argparse.ArgumentError, match="expected a number from 0 to 4294967295"):
        parser.parse_args([f"--seed={text}"])
