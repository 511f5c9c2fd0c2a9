# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam evaluate`: a table from a data root, in one command."""

import csv
import json

import cv2
import numpy as np
import pytest

from monai_effsam.cli.main import main


@pytest.fixture
def data_root(tmp_path):
    """Two noisy skin pictures with a block as label."""
    folder = tmp_path / "data" / "isic2018"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    label = np.zeros((20, 30), np.uint8)
    label[5:15, 5:20] = 1
    noise = np.random.default_rng(0)
    rows = [["image", "mask", "split", "case", "label_class"]]
    for name in ("a", "b"):
        cv2.imwrite(str(folder / "images" / f"{name}.png"), noise.integers(0, 256, (20, 30, 3), np.uint8))
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), label)
        rows.append([f"images/{name}.png", f"masks/{name}.png", "val", name, ""])
    write(folder / "splits.csv", rows)
    rows = [["set", "modality", "target", "label_value"], ["isic2018", "dermoscopy", "skin_lesion", "1"]]
    write(folder.parent / "targets.csv", rows)
    return folder.parent


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def evaluate(data_root, tiny_model, tmp_path):
    """Runs the command on the CPU with the tiny model."""
    base = [
        "evaluate",
        str(data_root),
        "-o",
        str(tmp_path / "out"),
        "--model",
        str(tiny_model),
        "--device",
        "cpu",
    ]
    return lambda *words: main([*base, *words])


def test_the_table_is_printed_and_written_where_asked(evaluate, tmp_path, capsys):
    page = tmp_path / "docs" / "page.md"
    assert evaluate("--write-docs", str(page)) == 0
    printed = capsys.readouterr().out
    assert "| ISIC lesion | 2 | 2 |" in printed
    assert page.read_text() == (tmp_path / "out" / "table.md").read_text()
    assert printed.startswith(page.read_text())
    summary = json.loads(page.with_suffix(".json").read_text())
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (tmp_path / "out" / "isic2018" / "a_overlay.png").is_file()


def test_no_path_of_this_machine_stands_in_the_page(evaluate, tmp_path):
    evaluate("-q")
    text = (tmp_path / "out" / "table.md").read_text() + (tmp_path / "out" / "summary.json").read_text()
    assert str(tmp_path) not in text


def test_json_prints_the_summary(evaluate, capsys):
    assert evaluate("--json", "--seed", "3", "--threads", "1") == 0
    made = json.loads(capsys.readouterr().out)["made"]
    assert (made["seed"], made["threads"], made["split"]) == (3, 1, "val")
    assert made["command"].endswith("--seed 3 --model MODEL --threads 1")


def test_pairs_are_evaluated_as_train_reads_them(data_root, tiny_model, tmp_path, capsys):
    pairs, out = data_root / "isic2018", tmp_path / "out"
    (pairs / "splits.csv").unlink()
    words = ["evaluate", str(pairs), "-o", str(out), "--model", str(tiny_model), "--modality", "dermoscopy"]
    assert main([*words, "--target", "skin_lesion=1", "--device", "cpu"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["sets"]["isic2018"]["files"] == 1  # of two groups one validates
    assert "--modality dermoscopy --target skin_lesion=1" in summary["made"]["command"]
    assert summary["rows"][0]["trivial"] > 0.9  # the other one has the same label


def test_a_datalist_is_evaluated_too(data_root, tiny_model, tmp_path):
    folder, out = data_root / "isic2018", tmp_path / "out"
    entries = [{"image": f"images/{n}.png", "label": f"masks/{n}.png"} for n in "ab"]
    path = folder / "mine.json"
    path.write_text(json.dumps({"training": [], "validation": entries}))
    words = ["evaluate", str(path), "-o", str(out), "--model", str(tiny_model), "--modality", "dermoscopy"]
    assert main([*words, "--target", "skin_lesion", "-q"]) == 0
    rows = list(csv.DictReader((out / "images.csv").read_text().splitlines()))
    assert [(row["set_name"], row["image"], row["trivial"]) for row in rows] == [
        ("mine", "images/a.png", ""), ("mine", "images/b.png", ""),
    ]  # fmt: skip


def test_a_simulated_user_prompts_and_two_runs_are_compared(
    evaluate, data_root, tiny_model, tmp_path, capsys
):
    assert evaluate("--robot", "box", "--jitter", "20", "--clicks", "1") == 0
    printed = capsys.readouterr().out
    assert "| mean Dice | box | box + 1 click |" in printed
    assert f"report: {tmp_path / 'out' / 'report.html'}" in printed
    words = [
        "evaluate",
        str(data_root),
        "-o",
        str(tmp_path / "two"),
        "--model",
        str(tiny_model),
        "--robot",
        "points",
    ]
    assert main([*words, "--compare", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "--robot points --clicks 1 --compare OTHER" in text
    assert "## Compared with the other evaluation" in text


BAD = {
    "unknown set": (["--sets", "isic"], "Did you mean 'isic2018'?"),
    "no such split": (["--split", "test"], "no file of the split 'test'"),
    "docs that are no page": (["--write-docs", "out.txt"], "expected a file that ends with .md"),
    "threads": (["--threads", "0"], "expected at least 1"),
    "clicks of nobody": (["--clicks", "2"], "nobody prompts, expected a simulated user. Add --robot."),
    "no clicks": (["--robot", "points", "--clicks", "0"], "expected at least 1 with points"),
    "jitter": (["--robot", "box", "--jitter", "-1"], "expected 0 or more pixels"),
    "tolerance": (["--tolerance", "0"], "tolerance is 0, expected a positive number"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD)
def test_bad_usage_is_status_2_one_line_and_no_output(evaluate, tmp_path, capsys, words, said):
    assert evaluate(*words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_data_root_is_named(tmp_path, tiny_model, capsys):
    assert main(["evaluate", str(tmp_path), "-o", str(tmp_path / "out"), "--model", str(tiny_model)]) == 2
    assert "holds no targets.csv, so --modality and --target are needed" in capsys.readouterr().err


def test_a_file_that_fails_is_status_1_and_named(evaluate, data_root, tmp_path, capsys):
    (data_root / "isic2018" / "images" / "b.png").write_bytes(b"")
    assert evaluate() == 1
    assert "b.png" in capsys.readouterr().err
    assert not (tmp_path / "out" / "summary.json").exists()
