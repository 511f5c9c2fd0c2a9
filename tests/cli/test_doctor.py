# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What `effsam doctor` tells about installed, missing and unknown packages."""

import importlib.metadata
import json

import pytest

from monai_effsam.cli import doctor
from monai_effsam.cli.main import main


@pytest.fixture
def requires(monkeypatch):
    """Pretend that the package requires these lines."""

    def pretend(*lines):
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: list(lines))

    return pretend


def test_reports_every_extra_as_json(requires, capsys):
    requires("numpy>=1.24", "no-such-package-here>=2; extra == 'nas'")
    assert main(["doctor", "--json"]) == 0
    packages = json.loads(capsys.readouterr().out)["packages"]
    assert packages["core"]["numpy"] == importlib.metadata.version("numpy")
    assert packages["nas"] == {"no-such-package-here": None}


def test_names_the_command_that_installs_a_missing_extra(requires, capsys):
    requires("numpy>=1.24", 'no-such-package-here; python_version > "3" and extra == "nas"')
    assert main(["doctor"]) == 0
    assert "install with: pip install 'monai-effsam[nas]'" in capsys.readouterr().out


def test_a_missing_core_package_is_a_failure(requires, capsys):
    requires("numpy>=1.24", "no-such-package-here>=2")
    assert main(["doctor"]) == 1
    assert "install with: pip install monai-effsam" in capsys.readouterr().out


def test_a_copy_that_is_not_installed_is_told_so(monkeypatch, capsys):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert main(["doctor"]) == 1
    assert "pip install -e ." in capsys.readouterr().out


def test_a_torch_that_cannot_be_loaded_is_a_failure(requires, monkeypatch, capsys):
    requires("numpy>=1.24")
    monkeypatch.setattr(doctor, "_devices", list)
    assert main(["doctor"]) == 1
    assert "torch cannot be loaded" in capsys.readouterr().out
