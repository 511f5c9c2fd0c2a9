# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Many inputs: order, overlap, bad files, failures in the middle, second runs."""

import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from monai_effsam.errors import DataError, UsageError
from monai_effsam.inference import run as run_module
from monai_effsam.inference.plan import Request, make_plan
from monai_effsam.inference.run import AHEAD, run_plan


@pytest.fixture
def go(segmenter, tmp_path):
    """Plans and runs; returns the outcomes."""

    def start(*inputs: Path, out: Path | None = None, told=None, **more):
        request = Request(inputs, out or tmp_path / "out", **{"modality": "endoscopy", **more})
        return run_plan(make_plan(request), segmenter, on_outcome=told)

    return start


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_input_gets_mask_overlay_and_line(go, picture, tmp_path, lines):
    path = picture("block.png")
    (outcome,) = go(path)
    out = tmp_path / "out"
    assert names(out) == ["block_mask.png", "block_overlay.png", "results.jsonl"]
    mask = cv2.imread(str(out / "block_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (48, 64)
    assert set(np.unique(mask)) == {0, 1}
    (record,) = lines(out)
    assert record == outcome.record
    assert record["input"] == str(path)
    assert (record["modality"], record["modality_source"]) == ("endoscopy", "caller")
    assert (record["mask"], record["overlay"]) == ("block_mask.png", "block_overlay.png")
    assert record["targets"][0]["area_px"] == int((mask == 1).sum())
    assert list(record["ms"]) == ["read", "prepare", "encode", "decode", "place", "write"]
    assert all(value >= 0 for value in record["ms"].values())
    assert "error" not in record


def test_order_is_kept_and_told(go, picture, tmp_path, lines):
    paths = [picture(f"{i}.png", size=(40 + 20 * (i % 3), 50)) for i in range(9)]
    told = []
    outcomes = go(*paths, told=lambda outcome: told.append(outcome.job.label))
    expected = [str(path) for path in paths]
    assert [o.job.label for o in outcomes] == told == expected
    assert [record["input"] for record in lines(tmp_path / "out")] == expected


def test_a_bad_file_is_reported_and_passed_over(go, picture, tmp_path, lines):
    picture("a.png")
    picture("b.png").write_bytes(b"")
    picture("c.png").write_bytes(b"no picture at all")
    cut = picture("d.png")
    cut.write_bytes(cut.read_bytes()[:60])
    picture("e.png")
    outcomes = go(tmp_path / "in")
    assert [o.error is None for o in outcomes] == [True, False, False, False, True]
    records = lines(tmp_path / "out")
    assert [("error" in r) for r in records] == [False, True, True, True, False]
    for record in records[1:4]:
        assert record["input"] in record["error"]
        assert "\n" not in record["error"]
        assert record["mask"] is record["overlay"] is None
        assert record["targets"] == []
    assert not [name for name in names(tmp_path / "out") if name[0] in "bcd"]


def test_a_file_that_vanishes_is_reported(go, picture, tmp_path, segmenter):
    plan = make_plan(Request((picture("a.png"), picture("b.png")), tmp_path / "out", modality="endoscopy"))
    (tmp_path / "in" / "a.png").unlink()
    outcomes = run_plan(plan, segmenter)
    assert [o.error is None for o in outcomes] == [False, True]


def test_a_network_that_fails_is_one_bad_input(go, picture, model, lines, tmp_path):
    decode = model.network.decode

    def fails_on_dark(encoded, number, **given):
        if float(encoded.embedding.max()) < 0.5:
            raise RuntimeError("out of\nmemory")
        return decode(encoded, number, **given)

    model.network.decode = fails_on_dark
    outcomes = go(picture("a.png"), picture("b.png", grey=90), picture("c.png"))
    assert [o.error is None for o in outcomes] == [True, False, True]
    assert lines(tmp_path / "out")[1]["error"].endswith("b.png: RuntimeError: out of memory")
    assert outcomes[1].is_usage_error is False


def test_a_modality_nobody_told_is_an_error_of_that_file(picture, segmenter, tmp_path, lines, monkeypatch):
    monkeypatch.setattr(
        run_module, "read_image", _with_modality(run_module.read_image, {"b.png": "ultrasound"})
    )
    plan = make_plan(Request((picture("a.png"), picture("b.png")), tmp_path / "out", modality="endoscopy"))
    outcomes = run_plan(replace(plan, request=replace(plan.request, modality=None)), segmenter)
    assert "modality is unknown, expected one of endoscopy" in outcomes[0].error
    assert outcomes[1].error is None
    first, second = lines(tmp_path / "out")
    assert (first["modality"], first["modality_source"]) == (None, None)
    assert (second["modality"], second["modality_source"]) == ("ultrasound", "dicom")


def test_a_modality_nobody_told_is_what_the_picture_looks_like(
    picture, segmenter, tmp_path, lines, monkeypatch, bright_router
):
    monkeypatch.setattr("monai_effsam.inference.modality.shipped_router", lambda: bright_router)
    cv2.imwrite(str(picture("b.png")), np.full((20, 20), 128, np.uint8))
    plan = make_plan(Request((picture("a.png"), tmp_path / "in" / "b.png"), tmp_path / "out"))
    outcomes = run_plan(plan, segmenter)
    assert outcomes[0].error is None
    assert outcomes[1].error.endswith("the picture looks like none that is known. Give --modality.")
    first, second = lines(tmp_path / "out")
    assert (first["modality"], first["modality_source"]) == ("ct", "router")
    assert first["notes"][0].startswith("looks like ct, ")
    assert (second["modality"], second["modality_source"]) == (None, None)


def test_a_caller_who_contradicts_the_file_wins_and_is_noted(go, picture, monkeypatch):
    monkeypatch.setattr(run_module, "read_image", _with_modality(run_module.read_image, {"a.png": "ct"}))
    (outcome,) = go(picture("a.png"))
    assert (outcome.record["modality"], outcome.record["modality_source"]) == ("endoscopy", "caller")
    assert "modality endoscopy was given, the DICOM attributes tell ct" in outcome.record["notes"]


def _with_modality(read, modalities):
    def patched(source, **options):
        image = read(source, **options)
        object.__setattr__(image, "modality", modalities.get(image.path.name))
        return image

    return patched


def test_reading_is_ahead_of_the_network_but_not_far(go, picture, segmenter, monkeypatch):
    paths = [picture(f"{i}.png") for i in range(10)]
    read, third_read, seen = [], threading.Event(), []
    read_image, segment = run_module.read_image, segmenter.segment

    def watched_read(source, **options):
        read.append(source.name)
        if len(read) == AHEAD:
            third_read.set()
        return read_image(source, **options)

    def watched_segment(image, *args, **options):
        assert third_read.wait(10), "nothing is read while the network works"
        seen.append(len(read) - len(seen))
        return segment(image, *args, **options)

    monkeypatch.setattr(run_module, "read_image", watched_read)
    monkeypatch.setattr(segmenter, "segment", watched_segment)
    outcomes = go(*paths)
    assert all(o.error is None for o in outcomes)
    assert max(seen) <= AHEAD + 1


def test_large_images_are_read_one_at_a_time(go, picture, segmenter, monkeypatch):
    monkeypatch.setattr(run_module, "HELD_BYTES", 1000)  # each holds 3072 bytes
    alive, most = set(), []
    read_image, write_overlay = run_module.read_image, run_module.write_overlay

    def watched_read(source, **options):
        alive.add(source.name)
        most.append(len(alive))
        return read_image(source, **options)

    def watched_write(image, *args):
        path = write_overlay(image, *args)
        alive.discard(image.name)
        return path

    monkeypatch.setattr(run_module, "read_image", watched_read)
    monkeypatch.setattr(run_module, "write_overlay", watched_write)
    assert [o.error for o in go(*[picture(f"{i}.png") for i in range(6)])] == [None] * 6
    assert most == [1] * 6


def test_writing_overlaps_the_network(go, picture, segmenter, monkeypatch):
    second, write_mask, segment = threading.Event(), run_module.write_mask, segmenter.segment

    def slow_write(image, mask, out):
        assert second.wait(10), "the network waits for the writer"
        return write_mask(image, mask, out)

    def watched_segment(image, *args, **options):
        if image.name == "b":
            second.set()
        return segment(image, *args, **options)

    monkeypatch.setattr(run_module, "write_mask", slow_write)
    monkeypatch.setattr(segmenter, "segment", watched_segment)
    assert [o.error for o in go(picture("a.png"), picture("b.png"))] == [None, None]


@pytest.mark.parametrize("stage", ["write_mask", "write_overlay"])
def test_a_failure_while_writing_leaves_nothing_half(go, picture, tmp_path, monkeypatch, lines, stage):
    original = getattr(run_module, stage)

    def full(image, *args):
        if image.name == "b":
            raise DataError(f"{image.name}: cannot be written: No space left on device.")
        return original(image, *args)

    monkeypatch.setattr(run_module, stage, full)
    outcomes = go(picture("a.png"), picture("b.png"), picture("c.png"))
    assert [o.error is None for o in outcomes] == [True, False, True]
    written = [f"{n}_{end}.png" for n in "ac" for end in ("mask", "overlay")]
    assert names(tmp_path / "out") == sorted([*written, "results.jsonl"])
    assert "No space left" in lines(tmp_path / "out")[1]["error"]


def test_a_line_that_cannot_be_written_takes_the_files_back(go, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(
        run_module.ResultsFile, "append", lambda *_: (_ for _ in ()).throw(DataError("disk full"))
    )
    (outcome,) = go(picture("a.png"))
    assert "disk full" in outcome.error
    assert names(tmp_path / "out") == ["results.jsonl"]


def test_an_interrupt_keeps_what_is_finished_and_nothing_half(
    go, picture, tmp_path, segmenter, monkeypatch, lines
):
    before = threading.active_count()
    segment = segmenter.segment

    def interrupted(image, *args, **options):
        if image.name == "3":
            raise KeyboardInterrupt
        return segment(image, *args, **options)

    monkeypatch.setattr(segmenter, "segment", interrupted)
    paths = [picture(f"{i}.png") for i in range(6)]
    with pytest.raises(KeyboardInterrupt):
        go(*paths)
    records = lines(tmp_path / "out")
    done = [Path(record["input"]).stem for record in records]
    assert done == ["0", "1", "2"][: len(done)]
    expected = [f"{n}_{end}.png" for n in done for end in ("mask", "overlay")]
    assert names(tmp_path / "out") == sorted([*expected, "results.jsonl"])
    assert threading.active_count() == before  # reader and writer are gone
    monkeypatch.undo()
    go(*paths, resume=True)
    assert sorted(Path(record["input"]).stem for record in lines(tmp_path / "out")) == list("012345")


def test_a_second_run_is_refused_and_overwrite_leaves_one_line_an_input(go, picture, tmp_path, lines):
    paths = [picture("a.png"), picture("b.png")]
    go(*paths)
    with pytest.raises(UsageError, match="--overwrite"):
        go(*paths)
    picture("b.png", grey=0)
    go(paths[1], overwrite=True)
    records = lines(tmp_path / "out")
    assert [Path(record["input"]).name for record in records] == ["a.png", "b.png"]
    assert [record["targets"][0]["found"] for record in records] == [True, False]


def test_results_beside_the_pictures_are_not_taken_for_pictures(go, picture, tmp_path):
    picture("a.png")
    folder = tmp_path / "in"
    assert len(go(folder, out=folder)) == 1
    assert len(go(folder, out=folder, overwrite=True)) == 1
    assert names(folder) == ["a.png", "a_mask.png", "a_overlay.png", "results.jsonl"]


def test_an_output_folder_that_cannot_be_made_is_named(go, picture, tmp_path):
    blocker = picture("a.png")
    with pytest.raises(DataError, match="folder cannot be made"):
        go(blocker, out=blocker / "deeper")
