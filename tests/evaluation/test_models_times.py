# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Models take turns while they are timed, by a clock that only they move."""

from types import SimpleNamespace

import numpy as np
import pytest

from monai_effsam.data.sets import read_sets
from monai_effsam.evaluation.models_times import PICTURES, times_in_turns
from monai_effsam.targets import TARGETS


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the start; `time.perf_counter` reads it."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr("time.perf_counter", lambda: now.seconds)
    return now


@pytest.fixture
def opener(clock):
    """A function: name and seconds of encoder and decoder -> what opens a model; the first picture takes far longer."""

    def make(name, encode_s, decode_s, log):
        def encode(image, index, modality):
            clock.seconds += encode_s + 100 * (name not in log)
            log.append(name)
            return modality

        def decode(encoding, targets, prompts):
            clock.seconds += decode_s
            target = next(t for t in TARGETS if t.name == targets[0])
            return SimpleNamespace(
                mask=np.zeros((1, 32, 32), np.uint8),
                targets=[target],
                quality=np.ones((1, 1)),
                presence=np.ones((1, 1)),
            )

        return lambda: SimpleNamespace(encode=encode, decode=decode, model=SimpleNamespace(targets=TARGETS))

    return make


def test_models_take_turns_and_the_first_picture_warms_up(opener, data_root):
    log = []
    models = {"slow": opener("slow", 2.0, 0.5, log), "fast": opener("fast", 0.25, 0.125, log)}
    lesions = [case for case in read_sets(data_root, ("busi",)) if case.label_class != "normal"]
    assert times_in_turns(models, lesions[:2]) == {
        "slow": {"encode_ms": 2000, "decode_ms": 500},
        "fast": {"encode_ms": 250, "decode_ms": 125},
    }
    assert log == ["slow", "fast", "fast", "slow"]


def test_a_few_pictures_with_a_target_are_enough(opener, data_root):
    log = []
    cases = read_sets(data_root, ("ours", "busi"))
    times_in_turns({"one": opener("one", 1, 1, log)}, 5 * cases)
    assert len(log) == 1 + PICTURES
    log.clear()
    normal = [case for case in cases if case.label_class == "normal"]
    assert times_in_turns({"one": opener("one", 1, 1, log)}, normal) == {}
    assert log == []
