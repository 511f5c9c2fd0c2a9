# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Without the data folder tests are skipped and counted aloud; with it they run."""

import shutil
import subprocess
import sys

import pytest

TESTS = """
import pytest

def test_by_fixture(shared):
    assert shared.name == "shared"

@pytest.mark.data
def test_by_marker():
    pass

@pytest.mark.skip("for another reason")
def test_skipped_otherwise():
    pass
"""


@pytest.fixture
def checkout(root, tmp_path):
    """A checkout of three tests, in a folder of its own."""
    folder = tmp_path / "checkout"
    (folder / "tests").mkdir(parents=True)
    shutil.copy(root / "pyproject.toml", folder)
    shutil.copy(root / "tests" / "conftest.py", folder / "tests")
    (folder / "tests" / "test_few.py").write_text(TESTS)
    return folder


def run(folder):
    """What pytest prints in a folder."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_skips_for_want_of_data_are_counted_aloud(checkout):
    text = run(checkout)
    assert "NOT TESTED" in text
    assert "\n2 tests on real images were skipped, because the data folder ../shared is missing." in text
    assert "3 skipped" in text


def test_nothing_is_said_where_the_data_is(checkout):
    (checkout.parent / "shared").mkdir()
    text = run(checkout)
    assert "NOT TESTED" not in text
    assert "2 passed, 1 skipped" in text
