# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Tracked files: licence line, length, no path of one machine, no large file outside the bundles' models."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = "# Licensed under the Apache License, Version 2.0 (see LICENSE)."
MAX_LINES = 300
MAX_BYTES = 1024 * 1024
MODEL_MAX_BYTES = 25 * 1000 * 1000
MACHINE_PATH = re.compile(r"(?<![\w.~$}-])/(?:work|root|home|tmp|opt|Users)/[\w.-]")


@pytest.fixture(scope="module")
def tracked():
    """Files that git knows and that exist; a source archive has no git and skips."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def text_of(path):
    """Content of a text file, "" for a binary one."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_every_source_file_begins_with_the_licence_line(tracked):
    heads = {p: text_of(p).splitlines()[:2] for p in tracked if p.suffix == ".py"}
    assert [str(p.relative_to(ROOT)) for p, head in heads.items() if HEADER not in head] == []


def test_no_file_of_the_package_is_longer_than_a_reader_can_hold(tracked):
    lengths = {
        p: len(text_of(p).splitlines()) for p in tracked if p.suffix == ".py" and "monai_effsam" in p.parts
    }
    assert {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > MAX_LINES} == {}


def test_no_file_names_a_path_of_one_machine(tracked):
    found = {str(p.relative_to(ROOT)): MACHINE_PATH.findall(text_of(p)) for p in tracked}
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_only_models_of_bundles_are_large(tracked):
    def limit(path):
        return MODEL_MAX_BYTES if path.parent.name == "models" and "bundles" in path.parts else MAX_BYTES

    assert [str(p.relative_to(ROOT)) for p in tracked if p.stat().st_size > limit(p)] == []


@pytest.mark.parametrize("text", ["open('/wor" + "k/a')", "cd /ro" + "ot/x", "see /home" + "/me/x"])
def test_the_search_for_machine_paths_finds_them(text):
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["docs/work/a", "$HOME/tmp/x", "../opt/x", "/works/x", "https://a.b/c"])
def test_the_search_for_machine_paths_leaves_others_alone(text):
    assert not MACHINE_PATH.search(text)
