# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam models card`: a model card from the model's own files."""

import json

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
