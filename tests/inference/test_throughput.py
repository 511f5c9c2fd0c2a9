# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures a second of encoders in turns, by a clock that only they move; and the option that asks for them."""

from types import SimpleNamespace

import pytest

from monai_effsam.cli.common import parse_batches
from monai_effsam.errors import UsageError
from monai_effsam.inference.throughput import encoder_rates
from monai_effsam.specs import ImageSpec


def runtime(name, clock, log, *, start, each):
    """Takes `start` seconds a pass and `each` a picture; the first pass of a size takes far longer."""

    def encode(images, modality):
        assert images.shape[1:] == (3, 32, 32)
        first = (name, len(images)) not in log
        clock.seconds += start + each * len(images) + 100 * first
        log.append((name, len(images)))

    return SimpleNamespace(encode=encode, model=SimpleNamespace(specs={"": ImageSpec(32)}))


def test_large_batches_hide_what_a_pass_costs(monkeypatch):
    clock, log = SimpleNamespace(seconds=0.0), []
    monkeypatch.setattr("time.perf_counter", lambda: clock.seconds)
    models = {
        "a": runtime("a", clock, log, start=1.0, each=0.25),
        "b": runtime("b", clock, log, start=0.0, each=0.5),
    }
    assert encoder_rates(models, (1, 4), rounds=2) == {"a": {"1": 0.8, "4": 2.0}, "b": {"1": 2.0, "4": 2.0}}
    assert log == [("a", 1), ("b", 1)] * 3 + [("a", 4), ("b", 4)] * 3


def test_batches_are_a_list_of_different_numbers():
    assert parse_batches(None) == ()
    assert parse_batches("1, 16") == (1, 16)
    for text in ("", "0", "1,1", "two", "1,,2"):
        with pytest.raises(UsageError, match="expected different numbers"):
            parse_batches(text)
