# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""results.jsonl: whole lines, one an input, one process a folder."""

import json
import os
import subprocess
import sys

import pytest

from monai_effsam.errors import DataError, UsageError
from monai_effsam.inference.results import ResultsFile, TargetResult, make_record, read_results, size_text

POLYP = TargetResult("polyp", 1, 120, 0.91234567, 0.5, True, area_mm2=30.0)


def record(source: str, mask: str | None = None, **more):
    return make_record(source=source, files={"mask": mask} if mask else None, **more)


def test_a_record_has_every_key_and_sizes_only_where_known():
    made = make_record(
        source="a.png", modality="endoscopy", modality_source="caller", targets=[POLYP], ms={"read": 1.26}
    )
    assert list(made) == ["input", "modality", "modality_source", "targets", "ms", "notes", "mask", "overlay"]
    assert made["ms"] == {"read": 1.3}
    assert made["targets"] == [
        {"name": "polyp", "value": 1, "area_px": 120, "quality": 0.9123, "presence": 0.5, "found": True,
         "area_mm2": 30.0}
    ]  # fmt: skip
    assert make_record(source="a.png", error="bad")["error"] == "bad"


def test_a_number_that_is_not_finite_becomes_null():
    assert TargetResult("polyp", 1, 0, float("nan"), 0.5, False).to_json()["quality"] is None


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ({"area_px": 7}, "7 px"),
        ({"area_px": 7, "area_mm2": 12.34567}, "12.35 mm2"),
        ({"area_px": 7, "volume_ml": 1.5}, "1.5 ml"),
    ],
)
def test_sizes_are_told_in_the_best_unit(target, text):
    assert size_text(target) == text


def test_records_are_appended_in_order_and_read_back(tmp_path):
    with ResultsFile(tmp_path) as results:
        results.append(record("ä.png"))
        results.append(record("b.png", error="bad"))
    assert [r["input"] for r in read_results(tmp_path / "results.jsonl")] == ["ä.png", "b.png"]
    assert (tmp_path / "results.jsonl").read_bytes().count(b"\n") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.jsonl"]


def test_each_line_is_there_as_soon_as_it_is_appended(tmp_path):
    with ResultsFile(tmp_path) as results:
        results.append(record("a.png"))
        assert json.loads((tmp_path / "results.jsonl").read_text())["input"] == "a.png"


@pytest.mark.parametrize(
    "again", [record("a.png", error="bad"), record("./a.png", "a_mask.png")], ids=["input", "mask"]
)
def test_a_later_line_of_the_same_input_or_mask_replaces_the_earlier(tmp_path, again):
    with ResultsFile(tmp_path) as results:
        results.append(record("a.png", "a_mask.png"))
        results.append(record("b.png", "b_mask.png"))
    with ResultsFile(tmp_path) as results:
        results.append(again)
    assert read_results(tmp_path / "results.jsonl") == [record("b.png", "b_mask.png"), again]


def test_a_line_cut_short_by_a_kill_is_healed(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(record("a.png")) + '\n{"input": "b.p')
    assert [r["input"] for r in read_results(path)] == ["a.png"]
    with ResultsFile(tmp_path) as results:
        results.append(record("c.png"))
    assert [json.loads(line)["input"] for line in path.read_text().splitlines()] == ["a.png", "c.png"]


@pytest.mark.parametrize("line", ["not json", "[]", "3", '{"output": 1}'])
def test_a_file_that_holds_something_else_is_refused_and_kept(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_text(f'{line}\n{{"input": "a"}}\n')
    with pytest.raises(DataError, match=r"line 1 is not a result.*Move it away"):
        ResultsFile(tmp_path)
    assert path.read_text().startswith(line)
    path.unlink()
    ResultsFile(tmp_path).close()  # the folder is not held any more


def test_a_disk_that_is_full_leaves_whole_lines(tmp_path, monkeypatch):
    with ResultsFile(tmp_path) as results:
        results.append(record("a.png"))
        write = os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda file, data: write(file, data[:10]))
            with pytest.raises(DataError, match=r"cannot be written \(no space left\)"):
                results.append(record("b.png"))
        results.append(record("c.png"))
    assert [r["input"] for r in read_results(tmp_path / "results.jsonl")] == ["a.png", "c.png"]


def test_a_second_process_on_one_folder_is_told(tmp_path):
    pytest.importorskip("fcntl")
    code = "import sys, pathlib; from monai_effsam.inference import ResultsFile; ResultsFile(pathlib.Path(sys.argv[1]))"
    with ResultsFile(tmp_path), pytest.raises(UsageError, match="another effsam process is writing here"):
        ResultsFile(tmp_path)
    with ResultsFile(tmp_path):
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert "another effsam process" in other.stderr
    ResultsFile(tmp_path).close()


def test_results_do_not_load_torch():
    code = "import sys, monai_effsam.inference.plan, monai_effsam.inference.results; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
