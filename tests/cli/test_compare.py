# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam compare`: a table of models from a data root, in one command."""

import csv
import json

import cv2
import numpy as np
import pytest

from monai_effsam.cli.main import main


@pytest.fixture
def data_root(tmp_path):
    """Three noisy skin pictures with a block as label, one of which a model may learn from."""
    folder = tmp_path / "data" / "isic2018"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    label = np.zeros((20, 30), np.uint8)
    label[5:15, 5:20] = 1
    noise = np.random.default_rng(0)
    rows = [["image", "mask", "split", "case"]]
    for name, split in (("a", "val"), ("b", "val"), ("c", "train")):
        cv2.imwrite(str(folder / "images" / f"{name}.png"), noise.integers(0, 256, (20, 30, 3), np.uint8))
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), label)
        rows.append([f"images/{name}.png", f"masks/{name}.png", split, name])
    write(folder / "splits.csv", rows)
    rows = [["set", "modality", "target", "label_value"], ["isic2018", "dermoscopy", "skin_lesion", "1"]]
    write(folder.parent / "targets.csv", rows)
    return folder.parent


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def compare(data_root, tiny_model, tmp_path):
    """Runs the command on the CPU with the tiny model."""
    base = ["compare", str(data_root), "-o", str(tmp_path / "out"), "--device", "cpu"]
    return lambda *words: main([*base, "--model", f"tiny={tiny_model}", *words])


def test_the_page_is_printed_and_written_where_asked_with_plot_and_numbers(
    compare, tiny_model, tmp_path, capsys
):
    page, notes = tmp_path / "docs" / "page.md", tmp_path / "notes.md"
    notes.write_text("## What cannot be compared\n\nNothing here.\n")
    words = ["--model", f"twin={tiny_model}", "--jitter", "0,20", "--seed", "3", "--threads", "1"]
    assert compare(*words, "--reference", "twin", "--notes", str(notes), "--write-docs", str(page)) == 0
    printed = capsys.readouterr().out
    told = "effsam compare DATA -o OUT --model tiny=PATH --model twin=PATH --jitter 0,20 --reference twin --seed 3"
    assert f"`{told} --threads 1`" in printed
    assert "| tiny − twin | 2 | **+0.0000** |" in printed
    assert "\n## What cannot be compared\n\nNothing here.\n" in printed
    assert page.read_text() == (tmp_path / "out" / "table.md").read_text().replace("table.svg", "page.svg")
    assert page.with_suffix(".svg").read_bytes() == (tmp_path / "out" / "table.svg").read_bytes()
    summary = json.loads(page.with_suffix(".json").read_text())
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [entry["prompt"] for entry in summary["prompts"]] == ["box", "box jitter 20", "point"]
    assert str(tmp_path) not in page.read_text() + page.with_suffix(".json").read_text()


def test_one_model_is_a_table_too_and_json_prints_it(compare, capsys):
    assert compare("--jitter", "0", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["prompts"][0]["pairs"] == []
    assert [model["model"] for model in summary["models"]] == ["tiny"]


def test_promptable_and_self_prompting_models_stand_side_by_side(compare, tiny_promptable, capsys):
    assert compare("--model", f"sam={tiny_promptable}", "--jitter", "0") == 0
    page = capsys.readouterr().out
    assert (
        page.count("\n| sam | ") == 2 + 2 * 3
    )  # the model, its trade; in means, medians and precision of both prompts
    assert "| sam − tiny | 2 |" in page


def test_promptable_models_outline_what_no_table_names(data_root, tiny_promptable, tmp_path):
    table = data_root / "targets.csv"
    table.write_text(table.read_text().replace("skin_lesion", "wart"))
    words = ["compare", str(data_root), "-o", str(tmp_path / "out"), "-q", "--device", "cpu"]
    assert main([*words, "--model", f"sam={tiny_promptable}"]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "images.csv").read_text().splitlines()))
    assert {row["target"] for row in rows} == {"wart"}


def test_an_earlier_table_is_resumed_or_refused(compare, tmp_path, capsys):
    assert compare("--jitter", "0", "-q") == 0
    before = (tmp_path / "out" / "images.csv").read_bytes()
    assert compare("--jitter", "0", "-q") == 2
    assert "images.csv: exists, expected a new file. Add --resume" in capsys.readouterr().err
    assert compare("--jitter", "0", "-q", "--resume") == 0
    assert (tmp_path / "out" / "images.csv").read_bytes() == before


BAD = {
    "unknown set": (["--sets", "isic"], "Did you mean 'isic2018'?"),
    "no such split": (["--split", "test"], "no file of the split 'test'"),
    "same name twice": (["--model", "tiny=here"], "--model tiny: is given twice"),
    "missing model": (["--model", "sam=sam.pth"], "--model sam: sam.pth is missing"),
    "no name": (["--model", "sam.pth"], "--model: is 'sam.pth', expected a name and a path"),
    "unknown reference": (["--reference", "tinny"], "--reference 'tinny' is unknown, expected one of tiny."),
    "family of nobody": (["--family", "sam=medsam"], "--family 'sam' is unknown, expected one of tiny."),
    "docs that are no page": (["--write-docs", "out.txt"], "expected a file that ends with .md"),
    "notes that are not there": (
        ["--notes", "none.md"],
        "--notes: none.md is missing, expected a Markdown file",
    ),
    "threads": (["--threads", "0"], "expected at least 1"),
    "jitter that is no number": (["--jitter", "0,x"], "--jitter: is '0,x', expected whole numbers of pixels"),
    "same jitter twice": (["--jitter", "5,5"], "jitter is 5, 5, expected one or more different numbers"),
    "both": (["--resume", "--overwrite"], "--resume and --overwrite: both are given"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD)
def test_bad_usage_is_status_2_one_line_and_no_output(compare, tmp_path, capsys, words, said):
    assert compare(*words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_fails_is_status_1_and_named(compare, data_root, tmp_path, capsys):
    (data_root / "isic2018" / "images" / "b.png").write_bytes(b"")
    assert compare() == 1
    assert "b.png" in capsys.readouterr().err
    assert not (tmp_path / "out" / "table.md").exists()
