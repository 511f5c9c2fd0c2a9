# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Sources that no training set is from: clones read, warned of and judged, on small made-up ones."""

import logging
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from monai_effsam.errors import DataError
from monai_effsam.evaluation import routing_command
from monai_effsam.evaluation.routing import RouterAnswers
from monai_effsam.evaluation.routing_source_table import SOURCES, RoutingSource
from monai_effsam.evaluation.routing_sources import SourcePictures, clone_command, evenly, read_sources
from monai_effsam.evaluation.routing_sources_page import (
    SourcesJudgement,
    judge_sources,
    sources_json,
    sources_section,
)

MODALITIES = {"endoscopy", "ultrasound", "dermoscopy", "xray", "fundus", "ct", "mr", ""}


def source(name="dark", modality="ct", count=4, commit="0" * 40, same_part=False):
    pattern = rf"{name} pictures/(?!copy)[^/]+\.png"
    return RoutingSource(
        name, modality, "someone/things", commit, pattern, count, "made up", "none", same_part
    )


def fill(root, name="dark", grey=5, names=("1", "2", "10", "copy 1", "x")):
    """A clone with pictures whose grey is their place, one of them not a picture when it is called x."""
    folder = root / "someone+things" / f"{name} pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for place, stem in enumerate(names):
        if stem == "x":
            (folder / "x.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        else:
            Image.fromarray(np.full((20, 30), grey + place, np.uint8)).save(folder / f"{stem}.png")
    (folder / f"{names[0]}.png.txt").write_text("no picture")
    return root / "someone+things"


def test_rows_of_the_table_are_sound():
    names = [row.name for row in SOURCES]
    assert len(set(names)) == len(names)
    assert {row.modality for row in SOURCES} == MODALITIES
    for modality in MODALITIES:
        assert len({row.repository for row in SOURCES if row.modality == modality}) >= 3, modality
    for row in SOURCES:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", row.repository), row.name
        assert re.fullmatch("[0-9a-f]{40}", row.commit), row.name
        assert row.count >= 10, row.name
        assert row.shows, row.name
        assert row.terms, row.name
        re.compile(row.pattern)
    commits = {(row.repository, row.commit) for row in SOURCES}
    assert len(commits) == len({row.repository for row in SOURCES})


def test_places_are_evenly_spread():
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(10, 2) == [2, 7]
    chosen = evenly(1311, 50)
    assert len(set(chosen)) == 50
    assert chosen[0] == 13
    assert chosen[-1] == 1297


def test_pictures_are_chosen_by_pattern_in_the_order_of_their_paths(tmp_path, caplog):
    fill(tmp_path, names=("1", "2", "10", "copy 1", "3"))
    (found,) = read_sources(tmp_path, [source()])
    assert [picture.group for picture in found.pictures] == [f"dark pictures/{n}.png" for n in (1, 10, 2, 3)]
    assert [int(picture.image[0, 0, 0]) for picture in found.pictures] == [5, 7, 6, 9]
    assert {(p.modality, p.source, p.image.shape) for p in found.pictures} == {("ct", "dark", (20, 30, 3))}
    assert found.broken == ()
    assert caplog.text == ""
    (fewer,) = read_sources(tmp_path, [source()], most=2)
    assert [picture.group for picture in fewer.pictures] == [f"dark pictures/{n}.png" for n in (10, 3)]


def test_broken_files_are_counted_and_passed_over(tmp_path, caplog):
    fill(tmp_path)
    (found,) = read_sources(tmp_path, [source()])
    assert found.broken == ("dark pictures/x.png",)
    assert len(found.pictures) == 3
    assert "dark: passed over." in caplog.text
    assert "x.png" in caplog.text


def test_other_counts_are_told(tmp_path, caplog):
    fill(tmp_path)
    read_sources(tmp_path, [source(count=5)])
    assert "dark: pictures are 4, expected 5." in caplog.text


def test_a_missing_clone_is_one_line_that_says_how_to_get_it(tmp_path, caplog):
    fill(tmp_path)
    other = RoutingSource("gone", "mr", "a/b", "0" * 40, ".*", 1, "made up", "none")
    found = read_sources(tmp_path, [source(), other])
    assert [each.source.name for each in found] == ["dark"]
    (line,) = [r.getMessage() for r in caplog.records if "gone" in r.getMessage()]
    assert line == f"gone: not here. git clone --depth 1 https://github.com/a/b {tmp_path / 'a+b'}"
    with pytest.raises(DataError, match=r"expected one clone at least\. git clone --depth 1"):
        read_sources(tmp_path / "nowhere", [source()])


def test_another_commit_is_told_with_the_commands_that_bring_the_right_one(tmp_path, caplog):
    clone = fill(tmp_path)
    git = ["git", "-C", str(clone), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "pictures"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    (found,) = read_sources(tmp_path, [source()])
    assert found.commit == head
    assert f"dark: commit is {head[:12]}, expected 000000000000. git -C" in caplog.text
    caplog.clear()
    read_sources(tmp_path, [source(commit=head)])
    assert "commit is" not in caplog.text


@pytest.fixture
def judged():
    """Four CT pictures of which one is unsure and one wrong, one MR, two foreign ones of which one is unknown."""
    probability = [
        [0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.5, 0.2, 0.3], [0.1, 0.9, 0.0], [0.1, 0.8, 0.1],
        [0.2, 0.1, 0.7], [0.9, 0.0, 0.1],
    ]  # fmt: skip
    names = ("a",) * 4 + ("b",) + ("f",) * 2
    answers = RouterAnswers(("ct", "mr"), 0.6, np.array([0] * 4 + [1, 2, 2]), np.array(probability), names)
    read = [
        SourcePictures(source(name, modality, same_part=name == "b"), (None,) * count, broken, "")
        for name, modality, count, broken in (("a", "ct", 4, ("x",)), ("b", "mr", 1, ()), ("f", "", 2, ()))
    ]
    return SourcesJudgement(answers, tuple(read))


def test_numbers_of_sources(judged):
    told = sources_json(judged)
    assert told["balanced_accuracy"] == (3 / 4 + 1) / 2
    assert told["balanced_accuracy_with_unknown"] == (2 / 4 + 1) / 2
    assert told["mean_over_sources"] == (3 / 4 + 1) / 2
    assert (told["same_part"], told["other_part"]) == (1, 3 / 4)
    assert told["foreign_unknown"] == [1, 2]
    assert told["broken"] == 1
    assert told["pictures"] == 7
    assert told["sources"]["a"] == {"likeliest": 3, "answer": 2, "pictures": 4}


def test_the_section_shows_a_row_a_source_and_the_confusion(judged):
    section = sources_section(judged)
    tree = f"https://github.com/someone/things/tree/{'0' * 40}"
    assert f"| [a]({tree}) | ct | made up | no | none | 4 | 75.0 % | 50.0 % | 1 |" in section
    assert f"| [f]({tree}) | foreign | made up |  | none | 2 |  | 50.0 % | 1 |" in section
    assert "| ct | 2 | 1 | 1 |" in section
    assert "| foreign | 1 |  | 1 |" in section
    assert "Balanced accuracy 87.5 %, 75.0 % where" in section
    assert "1 of 2. Files that could not be read: 1." in section
    assert "by the same modality 100.0 %, of others 75.0 % of" in section


def test_a_router_is_asked_for_every_picture(tmp_path, bright_router):
    fill(tmp_path)
    fill(tmp_path, "light", 120, ("1", "2"))
    found = read_sources(tmp_path, [source(), source("light", "", 2)])
    judged = judge_sources(bright_router, found)
    assert judged.answers.sources == ("dark",) * 3 + ("light",) * 2
    assert judged.answers.truth.tolist() == [5, 5, 5, 7, 7]
    assert sources_json(judged)["foreign_unknown"] == [2, 2]


def test_the_command_wants_a_clone(tmp_path, capsys, monkeypatch, bright_router, caplog):
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(routing_command.ModalityRouter, "open", lambda path: bright_router)
    monkeypatch.setattr(routing_command, "read_sets", lambda data: [])
    words = [str(tmp_path), "-o", str(tmp_path / "o"), "--sources", str(tmp_path / "clones")]
    monkeypatch.setattr(routing_command, "answers_of", lambda router, pictures: None)
    assert routing_command.main(words) == 2
    assert "expected one clone at least. git clone" in capsys.readouterr().err


def test_clone_commands_name_their_folder(tmp_path):
    assert clone_command(source(), tmp_path).endswith(
        f"https://github.com/someone/things {tmp_path}/someone+things"
    )
