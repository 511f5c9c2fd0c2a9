# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The speed page of local attention: what is compared computes the same, and what is measured is told."""

import json
import sys

import pytest
import torch

from monai_effsam.evaluation.attention_speed import cuda, memory, operators
from monai_effsam.evaluation.attention_speed.__main__ import main
from monai_effsam.evaluation.attention_speed.areas import area_exponent
from monai_effsam.evaluation.attention_speed.page import gpu_page
from monai_effsam.evaluation.attention_speed.turns import MachineLimits, times_in_turns_of

SMALL = operators.Shape(channels=16, heads=2, side=12)


@pytest.mark.parametrize("mode", operators.MODES)
def test_both_forms_of_attention_compute_the_same(mode):
    found = []
    for name in ("local attention", "unfold"):
        torch.manual_seed(3)
        answer = operators.operator_call(name, 5, SMALL, mode)()
        found.append(answer if isinstance(answer, tuple) else (answer,))
    assert len(found[0]) == (1 if mode == "inference" else 3)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_an_exponent_is_that_of_the_power():
    assert area_exponent({side: 3.0 * side**2 for side in (256, 512, 2048)}) == pytest.approx(1)
    assert area_exponent({side: 0.1 * side**4 for side in (256, 512)}) == pytest.approx(2)


def test_the_limit_is_the_larger_of_arithmetic_and_memory():
    limits = MachineLimits(flops=1e9, bytes=1e6)
    assert limits.least_ms(flops=2e6, moved=1) == pytest.approx(2)
    assert limits.least_ms(flops=1, moved=5e3) == pytest.approx(5)


def test_the_first_turn_warms_up_and_the_least_of_the_others_counts():
    calls = []
    found = times_in_turns_of({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert all(0 <= took < 1000 for took in found.values())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell the peak of a call")
def test_the_peak_is_that_of_the_call():
    mib = memory.extra_peak_mib(lambda: torch.ones(96, 1 << 18).sum())  # too large for memory freed before
    assert 90 < mib < 160


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell the peak of a call")
def test_unfold_copies_the_map_for_each_offset():
    shape = operators.Shape(side=64)
    of_a_map = 4 * shape.channels * shape.side**2 / 2**20
    assert memory.own_process_peak_mib("unfold", 7, "inference", shape) > 2 * 49 * of_a_map


def test_the_page_tells_every_figure(tmp_path, capsys, monkeypatch):
    out = tmp_path / "speed.md"
    words = ["--windows", "3", "--side", "16", "--sides", "32", "64", "--size", "nano", "--rounds", "1"]
    monkeypatch.setattr(memory, "own_process_peak_mib", lambda name, *_: {"unfold": 800.0}.get(name, 50.0))
    threads = torch.get_num_threads()
    try:
        assert main([*words, "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out == out.read_text()
    figures = json.loads(out.with_suffix(".json").read_text())
    assert [row["mode"] for row in figures["operators"]] == list(operators.MODES)
    row = figures["operators"][0]
    assert row["faster_than_unfold"] == pytest.approx(row["ms"]["unfold"] / row["ms"]["local attention"])
    assert f"| 3 x 3 | inference | {row['ms']['local attention']:.1f} |" in out.read_text()
    assert set(figures["exponents"]) == {"trunk", "local", "global"}
    assert "| 50 | 800 |" in out.read_text()
    assert "| 64 x 64 |" in out.read_text()


# On a GPU; what of it a CPU can try

TINY = cuda.GpuShape(batch=1, channels=4, heads=2, side=5)


def test_forms_on_a_gpu_compute_the_same():
    torch.manual_seed(0)
    maps = torch.randn(3, 1, 4, 5, 5, dtype=torch.float64).unbind(0)
    calls = cuda.gpu_calls(3, TINY, lambda attend: attend)
    assert {"compiled plain", "tiles", "automatic", "window attention"} <= set(calls)
    found = {name: call(*maps) for name, call in calls.items() if name not in ("window attention", "NATTEN")}
    for one in found.values():
        torch.testing.assert_close(one, found["tiles"], atol=1e-12, rtol=0)


def test_window_attention_sees_its_window():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 5, 7, dtype=torch.float64).unbind(0)
    found = cuda.window_attention(q, k, v, 3, 2)
    assert found.shape == q.shape
    for head in (slice(0, 2), slice(2, 4)):
        q_, k_, v_ = (x[0, head, 0:3, 3:6].flatten(1).T for x in (q, k, v))
        want = ((q_ @ k_.T) / 2**0.5).softmax(1) @ v_
        torch.testing.assert_close(found[0, head, 0:3, 3:6].flatten(1).T, want, atol=1e-12, rtol=0)


def test_the_page_of_a_gpu_tells_every_figure():
    rate = cuda.copy_rate("cpu", 1 << 16, 1)
    assert rate > 1e6
    rows = [
        cuda.gpu_row(3, TINY, mode, torch.float32, 1, 1e9, "cpu", lambda attend: attend)
        for mode in operators.MODES
    ]
    assert [row["limit_ms"] for row in rows] == pytest.approx([400 * 4e-6, 400 * 12e-6])
    assert all(took > 0 for row in rows for took in row["ms"].values())
    machine = {"versions": {"torch": "2"}}
    rows[0]["ms"] |= {"tiles": 1e-6, "automatic": 0.016}
    page = gpu_page(
        {
            "shape": TINY._asdict(),
            "copy_rate": 1e9,
            "rows": rows,
            "gpu": "GPU",
            "made_by": "me",
            "machine": machine,
        }
    )
    assert "| 3 x 3 | inference | float32 | 0.002 |" in page
    assert "| tiles | 10.0 |" in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(capsys):
    with pytest.raises(SystemExit):
        main(["--device", "cuda"])
    assert "expected cpu where there is no CUDA device" in capsys.readouterr().err
