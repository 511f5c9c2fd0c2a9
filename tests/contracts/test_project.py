# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The project's own files agree: requirements with constraints, versions with each other, make with its help."""

import os
import re
import subprocess
import sys
import tomllib

import pytest

from monai_effsam import __version__


def canonical(requirement):
    """Name of a package as an index spells it, without versions and extras."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]).lower()


@pytest.fixture(scope="module")
def requirements(root):
    """Every requirement of the package and of its extras."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"] + [
        line for extra in project["optional-dependencies"].values() for line in extra
    ]


def test_every_requirement_is_pinned_in_the_tested_set(root, requirements):
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonical(line) for line in lines if re.match(r"[\w.-]+==\d", line)}
    assert [line for line in requirements if canonical(line) not in pinned] == []


def test_requirements_have_lower_bounds_only(requirements):
    assert [line for line in requirements if re.search(r"==|<|~=|!=", line.split(";")[0])] == []


def test_citation_names_this_version(root):
    assert f"\nversion: {__version__}\n" in (root / "CITATION.cff").read_text(encoding="utf-8")


def test_ci_can_be_started(root):
    assert os.access(root / ".ci" / "run", os.X_OK)


@pytest.mark.skipif(sys.platform == "win32", reason="make is a tool of Unix")
def test_make_lists_every_target(root):
    targets = re.search(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[
        1
    ].split()
    result = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True)
    assert re.findall(r"^  make (\S+)", result.stdout, re.MULTILINE) == targets
