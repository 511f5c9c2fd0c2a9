# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The door of the command line: quick answers, one line an error, exit statuses."""

import json
import logging
import os
import subprocess
import sys
import types

import pytest

from monai_effsam import __version__
from monai_effsam.cli import main as door
from monai_effsam.errors import DataError, UsageError

QUICK = {
    "help": (["--help"], 0),
    "version": (["--version"], 0),
    "targets": (["targets"], 0),
    "targets of a modality as json": (["targets", "--modality", "mr", "--json"], 0),
    "help of a command": (["targets", "--help"], 0),
    "no command": ([], 2),
    "unknown command": (["segmnt"], 2),
    "unknown option": (["targets", "--jsn"], 2),
    "unknown modality": (["targets", "--modality", "mrr"], 2),
}

PROBE = """
import sys
from monai_effsam.cli.main import main
status = main(sys.argv[1:])
heavy = {"torch", "monai", "numpy", "cv2", "timm", "nibabel", "pydicom", "itk"} & set(sys.modules)
if heavy:
    sys.exit(f"imported {sorted(heavy)}")
sys.exit(status)
"""


def run(monkeypatch, error=None, status=0, words=()):
    """Run `effsam probe`, a command that does nothing but raise an error or return a status."""

    def act(args):
        if error is not None:
            raise error
        return status

    module = types.SimpleNamespace(__doc__="A probe.", add_arguments=lambda parser: None, run=act)
    monkeypatch.setattr(door, "COMMANDS", {"probe": door.Command("probe", "try the door")})
    monkeypatch.setattr(door.importlib, "import_module", lambda name: module)
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: None)
    return door.main(["probe", *words])


@pytest.mark.parametrize(("words", "status"), QUICK.values(), ids=QUICK)
def test_answers_at_once_without_torch_or_monai(words, status):
    before = os.times()
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *words], capture_output=True, text=True, check=False
    )
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert result.returncode == status, result.stderr
    assert seconds < 0.6


def test_module_and_installed_script_are_the_same_door():
    result = subprocess.run(
        [sys.executable, "-m", "monai_effsam.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"effsam {__version__}\n"


def test_help_lists_every_command(capsys):
    assert door.main(["--help"]) == 0
    text = capsys.readouterr().out
    missing = [
        name for name, command in door.COMMANDS.items() if command.summary not in text or name not in text
    ]
    assert missing == []


def test_an_unknown_command_is_answered_with_the_nearest_one(capsys):
    assert door.main(["target"]) == 2
    assert "Did you mean 'targets'?" in capsys.readouterr().err


def test_an_unknown_option_is_answered_with_the_nearest_one_and_the_usage(capsys):
    assert door.main(["targets", "--modalty", "mr"]) == 2
    error, usage = capsys.readouterr().err.splitlines()
    assert error == "effsam targets: error: unrecognized arguments: --modalty mr. Did you mean '--modality'?"
    assert usage.startswith("usage: effsam targets [-h]")


ENDS = {
    "all well": (None, 0, ""),
    "bad usage": (UsageError("box is wrong."), 2, "effsam probe: error: box is wrong.\n"),
    "unreadable data": (DataError("a.png: is empty."), 1, "effsam probe: error: a.png: is empty.\n"),
    "no permission": (
        PermissionError(13, "Permission denied", "out"),
        1,
        "effsam probe: error: [Errno 13] Permission denied: 'out'\n",
    ),
    "a bug": (
        KeyError("x\nsecond line"),
        1,
        "effsam probe: unexpected KeyError: 'x\\nsecond line'. Run again with -v to see where.\n",
    ),
    "a bug without words": (
        AssertionError(),
        1,
        "effsam probe: unexpected AssertionError: no message. Run again with -v to see where.\n",
    ),
    "interrupted": (KeyboardInterrupt(), 130, "effsam probe: interrupted\n"),
}


@pytest.mark.parametrize(("error", "status", "text"), ENDS.values(), ids=ENDS)
def test_every_end_has_its_status_and_one_line(monkeypatch, capsys, error, status, text):
    assert run(monkeypatch, error) == status
    assert capsys.readouterr().err == text


def test_the_status_of_the_command_is_the_status_of_the_process(monkeypatch):
    assert run(monkeypatch, status=1) == 1


def test_verbose_shows_where_an_error_comes_from(monkeypatch, capsys):
    assert run(monkeypatch, DataError("a.png: is empty."), words=["-v"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert text.endswith("\neffsam probe: error: a.png: is empty.\n")


@pytest.mark.parametrize(
    ("words", "level"),
    [([], logging.WARNING), (["-q"], logging.ERROR), (["-v"], logging.INFO), (["-vvv"], logging.DEBUG)],
    ids=["plain", "quiet", "verbose", "very verbose"],
)
def test_verbosity_sets_the_log_level(monkeypatch, words, level):
    levels = []
    module = types.SimpleNamespace(__doc__="", add_arguments=lambda parser: None, run=lambda args: 0)
    monkeypatch.setattr(door.importlib, "import_module", lambda name: module)
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: levels.append(settings["level"]))
    assert door.main(["targets", *words]) == 0
    assert levels == [level]


def test_a_reader_that_stops_listening_gets_no_trace():
    command = f"{sys.executable} -m monai_effsam.cli targets --json | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.stderr == ""


def test_targets_as_json_are_the_rows_of_the_modality(capsys):
    assert door.main(["targets", "--modality", "endoscopy", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["value"], row["colour"]) == ("polyp", 1, [0, 158, 115])


def test_targets_as_a_table_have_values_and_web_colours(capsys):
    assert door.main(["targets", "--modality", "xray"]) == 0
    _title, row = capsys.readouterr().out.splitlines()
    assert row.split() == ["xray", "lungs", "5", "#0072b2", "39607008", "Lung"]
