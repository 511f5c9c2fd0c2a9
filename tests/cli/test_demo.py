# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam demo`: manifest, page, and the pictures that the repository holds."""

import json
import re

import pytest

from monai_effsam.cli import demo
from monai_effsam.cli.main import main
from monai_effsam.errors import DataError, UsageError
from monai_effsam.targets import find_targets

FREE = {"CC BY 4.0", "CC BY-SA 4.0", "Apache-2.0"}


@pytest.fixture
def small_demo(picture, tmp_path, monkeypatch):
    """A demo folder with a good and a bad picture, and no data folder beside."""
    monkeypatch.setattr(demo, "ROOT", tmp_path / "checkout")
    picture("good.png")
    picture("bad.png").write_bytes(b"")
    rows = [
        {
            "file": f"{n}.png",
            "modality": m,
            "targets": [],
            "credit": "Me",
            "licence": "CC0",
            "source": "",
            "split": s,
        }
        for n, m, s in (("good", "endoscopy", "train"), ("bad", "mr", "val"))
    ]
    (tmp_path / "in" / "manifest.json").write_text(json.dumps(rows))
    return tmp_path / "in"


@pytest.fixture
def run_demo(tiny_model, small_demo, tmp_path):
    words = ["demo", "--images", str(small_demo), "--model", str(tiny_model), "-o", str(tmp_path / "page")]
    return lambda *more: main([*words, *map(str, more)])


def test_the_page_shows_what_went_well_and_what_did_not(run_demo, tmp_path, capsys):
    assert run_demo() == 1
    out = capsys.readouterr()
    page = (tmp_path / "page" / "index.html").read_text()
    assert out.out.strip() == str(tmp_path / "page" / "index.html")
    assert "bad.png" in out.err
    assert page.count("<article>") == 2
    assert page.count("<img ") == 2
    assert "polyp" in page
    assert "60 x 40 px" in page
    assert "saw this one in training" in page
    assert re.search(r'class="error">[^<]*bad\.png', page)


def test_a_page_is_made_again_but_a_strangers_is_not_touched(run_demo, tmp_path, capsys):
    assert run_demo() == 1
    assert run_demo() == 1
    page = tmp_path / "page" / "index.html"
    page.write_text("mine")
    capsys.readouterr()
    assert run_demo() == 2
    assert "is not a page of this command. Add --overwrite" in capsys.readouterr().err
    assert page.read_text() == "mine"


def test_pictures_of_a_data_folder_are_added(run_demo, picture, tmp_path):
    root = tmp_path / "data"
    for name in ("skin", "mine"):
        (root / name).mkdir(parents=True)
    (root / "targets.csv").write_text(
        "set,modality,target,label_value\nskin,dermoscopy,skin_lesion,1\nmine,endoscopy,polyp,1\n"
    )
    head = "image,mask,split,case,label_class\n"
    rows = "".join(
        f"{n}.png,m.png,{s},{n},\n" for n, s in [("t", "train"), *((f"v{i}", "val") for i in range(6))]
    )
    (root / "skin" / "splits.csv").write_text(head + rows)
    (root / "mine" / "splits.csv").write_text(head + "good.png,m.png,val,1,\nother.png,m.png,val,2,\n")
    for name in ("t", *(f"v{i}" for i in range(6))):
        picture(f"{name}.png").rename(root / "skin" / f"{name}.png")
    assert run_demo("--extra-data", root) == 1
    page = (tmp_path / "page" / "index.html").read_text()
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["good.png", "bad.png", "v0.png", "v3.png"]
    assert "not to be passed on" in page


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, UsageError, "the pictures of the demo come with the source"),
        ("[", DataError, "is no list of pictures"),
        ("[1]", DataError, "is no list of pictures"),
        ('[{"file": "a.png"}]', DataError, "'modality'"),
        ('{"a": 1}', DataError, "is no list of pictures"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named(tmp_path, text, error, message):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(error, match=rf"manifest\.json: .*{message}"):
        demo.read_manifest(tmp_path)


def test_the_pictures_of_the_repository_are_all_there_small_and_free(root):
    entries = demo.read_manifest(root / "demo")
    files = sorted((root / "demo" / "images").iterdir())
    assert sorted(entry.file for entry in entries) == files
    assert sum(path.stat().st_size for path in files) < 1.5e6
    credits_page = (root / "demo" / "CREDITS.md").read_text()
    for entry in entries:
        assert entry.licence in FREE
        assert entry.licence in credits_page
        assert entry.file.name.partition(".")[0] in credits_page
        assert len(find_targets(entry.targets, entry.modality)) == len(entry.targets)


@pytest.mark.data
def test_held_out_pictures_of_the_demo_are_in_no_train_split(root, shared):
    tables = [table.read_text() for table in shared.glob("data/*/splits.csv")]
    train = [line for table in tables for line in table.splitlines() if ",train," in line]
    for entry in demo.read_manifest(root / "demo"):
        seen = any(f"/{entry.file.name}," in line for line in train)
        assert seen == bool(entry.remark), entry.file.name
