# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam label`: what is refused at once, and the server as a process of its own."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_effsam.cli.label import check_packages, state_folder
from monai_effsam.cli.main import main
from monai_effsam.cli.serving import share_cores
from monai_effsam.errors import MissingExtraError


@pytest.fixture
def refused(capsys, monkeypatch, tmp_path):
    """A function: words -> the one line that `effsam label` ends with."""
    monkeypatch.setattr("monai_effsam.cli.label.check_packages", lambda: None)

    def run(*words):
        assert main(["label", *words]) == 2
        err = capsys.readouterr().err.strip()
        assert err.startswith("effsam label: error: ")
        assert "\n" not in err
        return err

    return run


def test_wrong_words_are_refused_in_one_line(refused, tmp_path):
    here = ("--studies", str(tmp_path))
    assert "is no folder" in refused("--studies", str(tmp_path / "none"))
    assert "--studies: is missing" in refused()
    (tmp_path / "ohif").mkdir()
    assert "expected a new or empty folder" in refused("--fetch-ohif", str(tmp_path))
    assert "names no host" in refused("--studies", "http://")
    assert "expected KEY=VALUE" in refused(*here, "--conf", "modality")
    assert "Check the name" in refused(*here, "--model", "none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "Choose another with --port" in refused(*here, "--port", port)


def test_open_to_the_network_needs_a_log_in(refused, tmp_path):
    pytest.importorskip("monailabel")
    here = ("--studies", str(tmp_path), "--state", str(tmp_path / "state"), "--port", "0")
    assert "expected a log-in then" in refused(*here, "--host", "0.0.0.0")
    (tmp_path / "token").write_text("short\n")
    assert "16 plain characters" in refused(*here, "--token-file", str(tmp_path / "token"))
    assert "expected an https address" in refused(*here, "--oidc", "http://users.example")


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'monai-effsam\[label\]'"):
        check_packages()


def test_state_lies_beside_the_images_or_in_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder("/data/ct") == Path("/data/ct/.effsam")
    one, other = state_folder("http://user:pw@pacs:8042/a"), state_folder("http://pacs:8042/b")
    assert one.parent == tmp_path / "effsam" / "label"
    assert one.name.startswith("pacs_8042-")
    assert one != other


def test_an_inference_takes_half_of_the_cores_and_never_spins(monkeypatch):
    monkeypatch.setattr("monai_effsam.cli.serving.usable_cores", lambda: 8)
    monkeypatch.setattr(os, "environ", {"OMP_WAIT_POLICY": "ACTIVE"})
    share_cores()
    assert os.environ == {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "4"}


def start(folder, state, *words):
    """The server as a process; its address once it answers."""
    command = [
        sys.executable,
        "-m",
        "monai_effsam.cli",
        "label",
        "--studies",
        str(folder),
        "--state",
        str(state),
    ]
    address = ""
    process = subprocess.Popen([*command, "--port", "0", *words], stdout=subprocess.PIPE, text=True)
    with process.stdout as said:
        for line in said:
            address = line.split()[-1] if line.startswith("server for") else address
            if line.startswith("Ctrl-C"):
                return process, address
    raise AssertionError(f"no server, status {process.wait()}")


def info(address):
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{address}/info/", timeout=5) as reply:
                return json.load(reply)
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


@pytest.mark.slow
@pytest.mark.integration
def test_server_is_killed_while_labels_are_stored_and_starts_again(tmp_path, tiny_model, tiny_promptable):
    pytest.importorskip("monailabel")
    httpx = pytest.importorskip("httpx")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in "abc":
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / f"{name}.png")
    words = (
        "--modality",
        "endoscopy",
        "--model",
        str(tiny_model),
        "--conf",
        f"prompted_model={tiny_promptable}",
    )
    process, address = start(folder, tmp_path / "state", *words)
    info(address)
    stored = {}
    try:
        for number in range(40):
            if number == 30:
                process.kill()  # -9
            content = f"label {number} ".encode() * 10_000
            name = "abc"[number % 3]
            reply = httpx.put(
                f"{address}/datastore/label?image={name}", files={"label": ("x.nii.gz", content)}
            )
            assert reply.status_code == 200, reply.text
            stored[name] = content
    except httpx.HTTPError:
        pass
    assert process.wait(20) == -signal.SIGKILL
    process, address = start(folder, tmp_path / "state", *words)
    try:
        assert info(address)["datastore"]["completed"] == 3
        for name, content in stored.items():
            assert httpx.get(f"{address}/datastore/label?label={name}&tag=final").content == content
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
