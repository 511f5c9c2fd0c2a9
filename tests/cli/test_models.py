# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam models`: a model card from the model's own files, and files of weights verified."""

import hashlib
import json
import re

import pytest

from monai_effsam.cli.main import main


@pytest.fixture
def card(tiny_model, tmp_path):
    """Runs the command with the tiny model."""
    base = ["models", "card", "--model", str(tiny_model), "-o", str(tmp_path / "docs" / "card.md")]
    return lambda *words: main([*base, *words])


def test_the_card_is_written_with_counts_of_the_network(card, tiny_model, tmp_path, capsys):
    assert card() == 0
    text = (tmp_path / "docs" / "card.md").read_text()
    assert capsys.readouterr().out.strip().endswith("card.md")
    assert f"{tiny_model.stat().st_size / 1e6:.1f} MB on disk" in text
    assert json.loads(tiny_model.with_suffix(".json").read_text())["sha256"] in text
    assert "| endoscopy | 64 | 0.0" in text
    assert str(tmp_path) not in text


def test_terms_come_from_the_file_that_is_named(card, tmp_path):
    terms = tmp_path / "terms.json"
    facts = {"origin": "somewhere known.", "terms": "free.", "leaks": "nothing."}
    terms.write_text(json.dumps({"weights": {"mobilenetv2_035": facts}}))
    assert card("--terms", str(terms)) == 0
    assert "somewhere known." in (tmp_path / "docs" / "card.md").read_text()


def test_numbers_of_another_model_are_refused(card, tmp_path, capsys):
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps({"model": {"sha256": "00"}}))
    assert card("--summary", str(summary)) == 2
    assert "is of a model with sha256 00" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()


def test_numbers_of_a_simulated_user_are_no_numbers_of_a_card(card, tiny_model, tmp_path, capsys):
    summary = tmp_path / "summary.json"
    sha = json.loads(tiny_model.with_suffix(".json").read_text())["sha256"]
    summary.write_text(json.dumps({"model": {"sha256": sha}, "made": {"robot": {"start": "box"}}}))
    assert card("--summary", str(summary)) == 2
    assert "is of a simulated user, expected an evaluation without prompts" in capsys.readouterr().err


def test_a_card_is_not_replaced_unasked(card, capsys):
    assert (card("-q"), card("-q"), card("-q", "--overwrite")) == (0, 2, 0)
    assert "Add --overwrite" in capsys.readouterr().err


BAD = {
    "missing": (None, 2, "no such file"),
    "not json": ("{", 1, "cannot be read as JSON"),
    "not an object": ("[]", 1, "holds a list, expected an object"),
}


@pytest.mark.parametrize(("content", "status", "said"), BAD.values(), ids=BAD)
def test_a_bad_file_is_named(card, tmp_path, capsys, content, status, said):
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    assert card("--terms", str(path)) == status
    error = capsys.readouterr().err
    assert "some.json" in error
    assert said in error


# check


@pytest.fixture(scope="module")
def sam_file(make_sam, tmp_path_factory):
    """A small SAM; tests must not change it."""
    import torch

    path = tmp_path_factory.mktemp("sam") / "sam.pth"
    torch.save(make_sam(size=64).state_dict(), path)
    return path


def check(*words):
    return main(["models", "check", *map(str, words)])


def test_check_tells_all_that_is_known_of_a_file(sam_file, capsys):
    digest = hashlib.sha256(sam_file.read_bytes()).hexdigest()
    assert check("--family", "medsam", sam_file, "--sha256", digest) == 0
    out, err = capsys.readouterr()
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert rows["family"] == "medsam"
    assert rows["layout"].startswith("vit, 4,")
    assert rows["sha256"] == digest
    assert rows["licence"].startswith("Apache-2.0")
    assert rows["input"].startswith(
        "any  size 64, resize stretch, intensity minmax, mean 0 0 0, std 1 1 1, interp"
    )
    assert rows["picture"].startswith("a drawn ellipse, 320 x 240, box ")
    assert "Dice with the ellipse 0." in rows["outline"]
    assert err == ""


def test_check_says_aloud_that_keys_leave_a_doubt(sam_file, capsys):
    assert check(sam_file) == 0
    assert "sam (or medsam: same keys, another input; --family says which)" in capsys.readouterr().out


def test_check_prints_json_for_a_picture_of_ones_own(sam_file, picture, capsys):
    path = picture("mine.png", (40, 60))
    assert check(sam_file, "--json", "--image", path) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["family"], found["or"]) == ("sam", ["medsam"])
    assert found["specs"]["any"]["mask_rule"] == "frame"
    assert found["forward"] | {"mask_px": 0, "in_box": 0, "quality": 0, "seconds": 0} == {
        "picture": str(path),
        "size": [40, 60],
        "box": [15, 10, 45, 30],
        "mask_px": 0,
        "in_box": 0,
        "quality": 0,
        "seconds": 0,
    }


def test_check_takes_a_model_of_this_package_by_file_or_folder(tiny_model, capsys):
    assert (check(tiny_model, "-q"), check(tiny_model.parent)) == (0, 0)
    out = capsys.readouterr().out
    assert out.count("family") == 1
    assert "esp_medsam, " in out
    assert "input endoscopy" in out


WRONG = {
    "checksum": (["--sha256", "0" * 64], 1, r"sam\.pth: sha256 is .*; the file is damaged or was exchanged"),
    "half a checksum": (["--sha256", "01ec64"], 2, "expected 64 hexadecimal digits"),
    "keys": (["--family", "lite_medsam"], 1, "has the keys of SAM or MedSAM, expected those of LiteMedSAM"),
    "name": (["--family", "medsm"], 2, "Did you mean 'medsam'"),
    "option of card": (["-o", "card.md"], 2, "-o given, expected only with card"),
    "picture": (["--image", "no.png"], 2, r"no\.png"),
}


@pytest.mark.parametrize(("words", "status", "message"), WRONG.values(), ids=WRONG)
def test_check_refuses_with_one_clear_line(sam_file, capsys, words, status, message):
    assert check(sam_file, *words) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert re.search(message, err)


def test_check_refuses_a_network_that_answers_no_numbers(sam_file, tmp_path, capsys):
    import torch

    state = torch.load(sam_file, weights_only=True)
    state["mask_decoder.iou_token.weight"].fill_(float("nan"))
    torch.save(state, tmp_path / "nan.pth")
    assert check(tmp_path / "nan.pth", "--family", "sam") == 1
    assert "network answers NaN or infinity on the picture" in capsys.readouterr().err


def test_check_and_card_ask_for_what_they_need(capsys):
    assert (main(["models", "check"]), main(["models", "card"])) == (2, 2)
    err = capsys.readouterr().err
    assert "no FILE given" in err
    assert "no -o given" in err
