# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Published models: whole, numbered, one in use, also when the publisher is killed."""

import json
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("filelock")

from monai_effsam.errors import DataError, UsageError
from monai_effsam.labelling.learning import publication
from tests.labelling.killing import survives


def write(content):
    """A function that fills a version's folder."""

    def fill(folder):
        (folder / "model.pt").write_bytes(content)
        (folder / "model.json").write_bytes(b"{}" + content)

    return fill


def test_versions_follow_each_other(tmp_path):
    models = tmp_path / "models"
    assert publication.current(models) is None
    assert publication.versions(models) == []
    first = publication.publish(models, write(b"1"))
    assert publication.current(models) == first == models / "v0001" / "model.pt"
    second = publication.publish(models, write(b"2"))
    assert publication.current(models).read_bytes() == b"2"
    assert first.read_bytes() == b"1"  # the old one is kept
    publication.use_version(models, "v0001")
    assert publication.current(models) == first
    assert publication.publish(models, write(b"3")).parent.name == "v0003"
    publication.use_version(models, None)
    assert publication.current(models) is None
    assert second.is_file()


def test_the_oldest_go_when_there_are_many(tmp_path):
    for number in range(5):
        publication.publish(tmp_path, write(b"%d" % number), kept=3)
    assert publication.versions(tmp_path) == ["v0003", "v0004", "v0005"]


def test_nothing_is_published_that_is_not_whole(tmp_path):
    publication.publish(tmp_path, write(b"1"))

    def fail(folder):
        (folder / "model.pt").write_bytes(b"half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        publication.publish(tmp_path, fail)
    with pytest.raises(DataError, match=r"holds no model\.pt"):
        publication.publish(tmp_path, lambda folder: None)
    assert publication.current(tmp_path).read_bytes() == b"1"
    assert publication.versions(tmp_path) == ["v0001"]
    assert not list(tmp_path.glob(".part-*"))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"version": "../../etc"}', b'{"version": "v0009"}', b"{}"])
def test_a_damaged_pointer_is_told(tmp_path, content):
    publication.publish(tmp_path, write(b"1"))
    (tmp_path / "current.json").write_bytes(content)
    with pytest.raises(DataError, match=r"current\.json"):
        publication.current(tmp_path)


def test_only_versions_that_exist_are_used(tmp_path):
    publication.publish(tmp_path, write(b"1"))
    with pytest.raises(UsageError, match="v0001"):
        publication.use_version(tmp_path, "../x")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to be killed here")
def test_killed_at_every_step(tmp_path):
    seen = set()
    for deadly in range(1, 60):
        folder = tmp_path / str(deadly)
        publication.publish(folder, write(b"old" * 1000))
        done = survives(
            lambda folder=folder: publication.publish(folder, write(b"new" * 1000)),
            deadly,
            also=((Path, "mkdir"), (Path, "write_bytes"), (shutil, "rmtree")),
        )
        model = publication.current(folder)
        content = model.read_bytes()
        assert content in (b"old" * 1000, b"new" * 1000)
        assert model.with_suffix(".json").read_bytes() == b"{}" + content
        seen.add(content[:3])
        again = publication.publish(folder, write(b"next"))  # and the next one goes through, and tidies up
        assert publication.current(folder) == again
        assert not list(folder.glob(".part-*"))
        assert json.loads((folder / "current.json").read_bytes())["version"] == again.parent.name
        if done:
            assert content == b"new" * 1000
            assert seen == {b"old", b"new"}
            assert deadly > 8
            return
    pytest.fail("the process never got through")
