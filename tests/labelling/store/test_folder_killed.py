# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A process that is killed while it stores: nothing lost, nothing in half."""

import os
from pathlib import Path

import pytest

pytest.importorskip("monailabel")
if not hasattr(os, "fork"):
    pytest.skip("no processes to be killed here", allow_module_level=True)

from monai_effsam.labelling.store.folder import FolderStore
from tests.labelling.killing import survives


def store_anew(folder, sent, what):
    """Store a label, or an image, in place of the one that is there."""
    store = FolderStore(folder)
    if what == "label":
        store.save_label("a", str(sent), "final", {"label_info": [{"name": "new", "idx": 1}]})
    else:
        store.add_image("a", str(sent), {"from": "new"})


@pytest.fixture
def sent(tmp_path):
    """A folder with what is sent."""
    folder = tmp_path / "sent"
    folder.mkdir()
    (folder / "old.png").write_bytes(b"old" * 1000)
    (folder / "new.nii.gz").write_bytes(b"new" * 1000)
    return folder


def fresh(tmp_path, number):
    """A store with one image that has a label."""
    folder = tmp_path / f"store{number}"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"image")
    (folder / "b.png").write_bytes(b"image")
    FolderStore(folder).save_label(
        "a", str(tmp_path / "sent/old.png"), "final", {"label_info": [{"name": "old", "idx": 1}]}
    )
    return folder


def remains(folder):
    return [p.name for p in Path(folder).rglob(".p*")]


@pytest.mark.parametrize("what", ["label", "image"])
def test_killed_at_every_step(tmp_path, sent, what):
    seen = set()
    for deadly in range(1, 60):
        folder = fresh(tmp_path, deadly)
        done = survives(lambda folder=folder: store_anew(folder, sent / "new.nii.gz", what), deadly)
        store = FolderStore(folder)  # the restart
        if what == "label":
            name = store.get_label_info("a", "final")["label_info"][0]["name"]
            content = store.get_label("a", "final").read()
            assert content == name.encode() * 1000, deadly  # the file and its names are of one kind
            assert [p.name for p in (folder / "labels/final").iterdir()] in (["a.png"], ["a.nii.gz"])
        else:
            name = store.get_image_info("a").get("from", "old")
            assert store.get_image("a").read() == (b"image" if name == "old" else b"new" * 1000), deadly
            assert store.get_label("a", "final").read() == b"old" * 1000
        assert store.list_images() == ["a", "b"]
        assert remains(folder) == []
        seen.add(name)
        if done:
            assert name == "new"  # what was reported stays
            assert seen == {"old", "new"}
            assert deadly > 8
            return
    pytest.fail("the process never got through")
