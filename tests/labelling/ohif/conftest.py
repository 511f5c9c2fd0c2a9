# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A PACS, a browser and a prebuilt OHIF for the tests marked slow; what is missing is installed where it can be."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = {"Orthanc": "orthanc orthanc-dicomweb", "chromium": "chromium"}


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(url: str, seconds: float = 60) -> None:
    """Until a server answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (OSError, urllib.error.URLError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


def program(name: str) -> str:
    """Path of a program; Debian's package is installed where it is missing and that is allowed."""
    found = shutil.which(name)
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES[name].split()]
        subprocess.run(["apt-get", "update"], capture_output=True, check=False)
        subprocess.run(install, capture_output=True, check=False, env=environment)
        found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install --no-install-recommends {PACKAGES[name]}")
    return found


@pytest.fixture(scope="session")
def ohif_dist() -> Path:
    """The viewer: the folder that EFFSAM_OHIF names, else fetched once into the user's cache."""
    from monai_effsam.errors import EffsamError
    from monai_effsam.labelling.server.ohif_fetch import OHIF_PACKAGE, fetch_ohif

    if "EFFSAM_OHIF" in os.environ:
        return Path(os.environ["EFFSAM_OHIF"])
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "monai_effsam" / f"ohif-{OHIF_PACKAGE.rpartition('@')[2]}"
    if not folder.is_dir():
        try:
            fetch_ohif(folder)
        except EffsamError as error:
            pytest.skip(str(error))
    return folder


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an empty Orthanc."""
    command = program("Orthanc")
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    settings = {
        "StorageDirectory": str(folder), "IndexDirectory": str(folder), "HttpPort": port, "DicomPort": free_port(),
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": ["/usr/share/orthanc/plugins"],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([command, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/system")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def browser_program() -> str:
    """Path of Chromium."""
    return program("chromium")


@pytest.fixture(scope="session")
def served() -> Iterator[object]:
    """A function: ASGI application -> its address."""
    uvicorn = pytest.importorskip("uvicorn")
    running = []

    def serve(app: object) -> str:
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        wait_for(f"http://127.0.0.1:{port}/info/")
        return f"http://127.0.0.1:{port}"

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
