# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The commands with models that outline what they are prompted for: ours, weights of others, exported folders."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from monai_effsam.cli.main import main
from monai_effsam.inference import model_path

BOX = ("--box", "10,8,50,30")

WITHOUT_TORCH = """
import sys
from monai_effsam.cli.main import main
status = main(sys.argv[1:])
heavy = {"torch", "monai", "timm"} & sys.modules.keys()
sys.exit(f"imported {heavy}" if heavy else status)
"""


@pytest.fixture(scope="module")
def sam_file(make_sam, tmp_path_factory):
    """Weights of others, small; tests must not change them."""
    import torch

    path = tmp_path_factory.mktemp("sam") / "sam.pth"
    torch.save(make_sam(size=64).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def exported(tiny_promptable, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    out = tmp_path_factory.mktemp("exported") / "promptable"
    assert main(["export", str(tiny_promptable), "-o", str(out), "-q"]) == 0
    return out


def segment(picture: Path, model: Path | str, out: Path, *words: str) -> int:
    return main(["segment", str(picture), "--model", str(model), "-o", str(out), *words])


def answer(out: Path) -> tuple[dict, np.ndarray]:
    (record,) = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return record, cv2.imread(str(out / record["mask"]), cv2.IMREAD_UNCHANGED)


def test_an_object_is_outlined_without_a_modality(picture, tiny_promptable, tmp_path, capsys):
    assert segment(picture(), tiny_promptable, tmp_path / "out", *BOX, "--device", "cpu") == 0
    record, mask = answer(tmp_path / "out")
    (found,) = record["targets"]
    assert (record["modality"], record["modality_source"]) == (None, None)
    assert (found["name"], found["value"], found["presence"]) == ("object", 1, 1)
    assert 0 <= found["quality"] <= 1
    assert mask.shape == (40, 60)
    assert found["area_px"] == np.count_nonzero(mask == 1) > 0
    assert "object" in capsys.readouterr().out


def test_a_target_gives_its_value_and_its_colour(picture, tiny_promptable, tmp_path):
    words = ["--modality", "ultrasound", "--target", "fetal_head", "--point", "30,20", "--point", "2,2,0"]
    assert segment(picture(), tiny_promptable, tmp_path / "out", *words) == 0
    record, mask = answer(tmp_path / "out")
    assert (record["modality"], record["targets"][0]["name"]) == ("ultrasound", "fetal_head")
    assert set(np.unique(mask)) == {0, 4}
    overlay = cv2.imread(str(tmp_path / "out" / "a_overlay.png"))[..., ::-1]
    assert (overlay[mask == 4] == (86, 180, 233)).all(-1).any()  # the outline


WRONG = {
    "no prompt": (
        [],
        "this model outlines what it is prompted for, expected a prompt. Give --box or --point.",
    ),
    "two targets": (
        [*BOX, "--target", "liver", "--target", "spleen"],
        "2 targets are asked for, liver, spleen",
    ),
    "no such target": ([*BOX, "--target", "livr"], "Did you mean 'liver'"),
    "no such modality": ([*BOX, "--modality", "dermscopy"], "Did you mean 'dermoscopy'"),
    "outside": (["--box", "0,0,61,8"], "X0 < X1 <= 60"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("kind", ["ours", "others"])
def test_bad_usage_is_status_2_one_line_and_no_output(
    picture, tiny_promptable, sam_file, tmp_path, capsys, kind, words, said
):
    own = [tiny_promptable] if kind == "ours" else [sam_file]
    family = [] if kind == "ours" else ["--family", "sam"]
    assert segment(picture(), own[0], tmp_path / "out", *words, *family) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_weights_of_others_take_the_input_of_their_family(picture, sam_file, tmp_path):
    masks = []
    for family in ("sam", "medsam"):
        assert segment(picture(), sam_file, tmp_path / family, *BOX, "--family", family) == 0
        masks.append(answer(tmp_path / family)[1])
    assert (masks[0] != masks[1]).any()


def test_a_family_needs_a_model_and_weights_of_others(picture, tiny_promptable, tmp_path, capsys):
    words = ["segment", str(picture()), "-o", str(tmp_path / "out"), *BOX, "--family", "sam"]
    assert main(words) == 2
    assert "--family sam: no model is named" in capsys.readouterr().err
    assert main([*words, "--model", str(tiny_promptable)]) == 1
    assert "a model of this package, expected a checkpoint of SAM" in capsys.readouterr().err


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_exported_model_segments_as_the_model_does_without_torch(
    picture, tiny_promptable, exported, tmp_path, runtime
):
    path = picture("a.png", (70, 90))
    assert segment(path, tiny_promptable, tmp_path / "t", *BOX) == 0
    words = [
        "segment",
        str(path),
        "--model",
        str(exported),
        "--runtime",
        runtime,
        "-o",
        str(tmp_path / "e"),
        *BOX,
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    one, two = answer(tmp_path / "t"), answer(tmp_path / "e")
    assert one[1].any()
    assert (one[1] != two[1]).mean() < 1e-3
    assert one[0]["targets"][0]["quality"] == pytest.approx(two[0]["targets"][0]["quality"], abs=1e-3)


def test_a_bundle_that_ships_is_named_by_its_name(picture, tiny_promptable, tmp_path, monkeypatch, capsys):
    root = tmp_path / "root"
    monkeypatch.setattr(model_path.monai_effsam, "__file__", str(root / "monai_effsam" / "__init__.py"))
    for name in ("esp_medsam", "kd_sam"):
        folder = root / "bundles" / name / "models"
        folder.mkdir(parents=True)
        for ending in (".pt", ".json"):
            shutil.copy(tiny_promptable.with_suffix(ending), folder)
    assert segment(picture(), "kd_sam", tmp_path / "out", *BOX) == 0
    assert segment(picture(), "kd_sma", tmp_path / "two", *BOX) == 2
    error = capsys.readouterr().err
    assert "--model: kd_sma is missing, expected a model.pt" in error
    assert "one of those that ship: esp_medsam, kd_sam" in error


# evaluate


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two noisy pictures with a block as label, named nowhere in the target table."""
    folder = tmp_path / "pairs"
    label = np.zeros((40, 60), np.uint8)
    label[10:30, 10:40] = 1
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name in "abcd":
        noise = np.random.default_rng(ord(name)).integers(0, 256, (40, 60, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{name}.png"), noise)
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), label)
    return folder


@pytest.fixture
def evaluate(pairs, tmp_path):
    """Runs the command; the target is unknown to the model unless it is named."""

    def run(model: Path, *words: str, target: str = "ulcer", out: str = "out") -> int:
        data = [str(pairs), "--modality", "endoscopy", "--target", target]
        return main(["evaluate", *data, "-o", str(tmp_path / out), "--model", str(model), *words])

    return run


def test_a_simulated_user_evaluates_what_no_table_names(evaluate, tiny_promptable, tmp_path, capsys):
    assert evaluate(tiny_promptable, "--robot", "box", "--clicks", "1", "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert "| mean Dice | box | box + 1 click |" in printed
    assert "presence" not in printed.lower()
    assert "## Quality" in printed
    out = tmp_path / "out"
    rows = list(csv.DictReader((out / "images.csv").read_text().splitlines()))
    assert {row["target"] for row in rows} == {"ulcer"}
    assert {row["presence"] for row in rows} == {"1.0"}
    report = (out / "report.html").read_text()
    assert "presence" not in report.lower()
    assert "true IoU" in report  # the plot of quality
    summary = json.loads((out / "summary.json").read_text())
    assert summary["made"]["command"].endswith(f"--model MODEL --threads {summary['made']['threads']}")


def test_every_kind_of_model_is_evaluated(evaluate, tiny_promptable, exported, sam_file, tmp_path):
    assert evaluate(tiny_promptable, "--robot", "points", target="polyp", out="one") == 0
    assert evaluate(exported, "--robot", "points", target="polyp", out="two") == 0
    assert evaluate(sam_file, "--robot", "box", "--family", "medsam", target="polyp", out="three") == 0
    one, two, three = (
        json.loads((tmp_path / n / "summary.json").read_text()) for n in ("one", "two", "three")
    )
    scores = [summary["others"][0]["score"]["mean"] for summary in (one, two)]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)
    assert one["model"]["sha256"] == two["model"]["sha256"]
    assert "--family medsam" in three["made"]["command"]
    assert three["model"]["name"] == "medsam"


def test_nobody_prompts_is_one_clear_line(evaluate, tiny_promptable, tmp_path, capsys):
    assert evaluate(tiny_promptable) == 2
    error = capsys.readouterr().err
    assert (
        "outlines what it is prompted for, expected a simulated user. Add --robot box or --robot points"
        in error
    )
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


# export, profile, check, demo


def test_export_tells_how_far_each_runtime_is_from_torch(tiny_promptable, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "exported"
    assert main(["export", str(tiny_promptable), "-o", str(out), "--runtime", "onnxruntime", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert 0 < report["differences"]["onnxruntime"]["mask_logits"] < 1e-3
    manifest = json.loads((out / "manifest.json").read_text())
    card = json.loads(tiny_promptable.with_suffix(".json").read_text())
    assert manifest["kind"] == "promptable"
    assert (manifest["specs"], manifest["targets"]) == (card["specs"], card["targets"])
    assert manifest["sha256"] == card["sha256"]


def test_a_model_of_two_sizes_is_not_exported(tmp_path, capsys):
    from monai_effsam.checkpoints import save_model
    from monai_effsam.networks.nets import PromptableSam
    from monai_effsam.specs import ImageSpec

    options = {"image_encoder": {"name": "tiny_vit"}}
    specs = {"": ImageSpec(64), "ct": ImageSpec(128)}
    path = save_model(tmp_path / "model.pt", PromptableSam(**options), specs, options)
    assert main(["export", str(path), "-o", str(tmp_path / "out")]) == 1
    assert "its specs have the sizes 64, 128, expected one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_profile_prompts_a_box_where_none_is_given(picture, exported, capsys):
    words = ["profile", str(picture()), str(picture("b.png", (9, 300))), "--model", str(exported)]
    for more in ([], ["--box", "1,1,8,8", "--modality", "ct"]):
        assert main([*words, "--rounds", "1", "--threads", "1", "--json", *more]) == 0
        stages = json.loads(capsys.readouterr().out)["stages_ms"]
        assert all(ms > 0 for ms in stages.values())
    assert main([*words, "--rounds", "1", "--box", "0,0,61,8"]) == 2
    assert "outside the image" in capsys.readouterr().err


def test_a_profile_of_a_self_prompting_model_needs_a_modality(picture, tiny_model, capsys):
    assert main(["profile", str(picture()), "--model", str(tiny_model)]) == 2
    assert "--modality: is missing, expected that of every input" in capsys.readouterr().err


@pytest.mark.slow
def test_one_table_compares_the_runtimes(picture, sam_file, tmp_path):
    page = tmp_path / "speed.md"
    words = ["profile", str(picture()), "--model", str(sam_file), "--family", "medsam", "--every-runtime"]
    assert main([*words, "--rounds", "1", "--threads", "1", "--write-docs", str(page), "-q"]) == 0
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert "OpenVINO" in lines[0]
    assert all(float(cell) > 0 for line in lines[2:] for cell in line.split("|")[2:-1])


def test_check_takes_a_promptable_model_by_file_or_folder(tiny_promptable, capsys):
    assert main(["models", "check", str(tiny_promptable.parent)]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["family"] == "effsam"
    assert rows["layout"].startswith("promptable_sam, ")
    assert "px, " in rows["outline"]


def test_a_card_is_written_with_the_numbers_of_a_simulated_user(evaluate, tiny_promptable, tmp_path):
    assert evaluate(tiny_promptable, "--robot", "box", target="polyp") == 0
    card = tmp_path / "card.md"
    words = ["models", "card", "--model", str(tiny_promptable), "-o", str(card), "-q"]
    assert main([*words, "--summary", str(tmp_path / "out" / "summary.json")]) == 0
    text = card.read_text()
    assert "a simulated user who prompts (box)" in text
    assert "| any | 64 | 0." in text
    assert "| ct | 64 x 64, stretch |" in text


def test_a_demo_is_of_models_that_prompt_themselves(tiny_promptable, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    (images / "manifest.json").write_text("[]")
    assert main(["demo", "--images", str(images), "--model", str(tiny_promptable)]) == 2
    assert "expected a self-prompting model: nobody prompts in a demo" in capsys.readouterr().err
