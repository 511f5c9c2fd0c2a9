# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A server over small studies with tasks that need no model: in process for most tests, on a port for real clients."""

import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():  # its imports warn of much that is not ours
    warnings.simplefilter("ignore")
    pytest.importorskip("monailabel")
    sitk = pytest.importorskip("SimpleITK")
    import monailabel.interfaces.app  # noqa: F401
    from fastapi.testclient import TestClient

    from monai_effsam.labelling.app import LabellingApp
    from tests.labelling.server.stubs import StubTask, StubTrainer

from monai_effsam.labelling.server import Limits, ServerSettings, create_server

LOCAL = "http://127.0.0.1:8000"


class StubApp(LabellingApp):
    """The app with tasks that need no model."""

    def init_infers(self) -> dict[str, Any]:
        return {"automatic": StubTask("segmentation", 3), "prompted_2d": StubTask("deepgrow", 2)}

    def init_trainers(self) -> dict[str, Any]:
        return {"decoder": StubTrainer()}


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Three volumes, the first stored as LPS with uneven spacing, as DICOM conversions are."""
    folder = tmp_path / "studies"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in "abc":
        volume = sitk.GetImageFromArray(random.integers(0, 255, (5, 20, 30), dtype=np.uint8))
        volume.SetSpacing((0.7, 0.8, 2.5))
        volume.SetOrigin((-10.0, 5.0, 30.0))
        sitk.WriteImage(volume, str(folder / f"{name}.nii.gz"))
    return folder


@pytest.fixture
def make_app(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StubApp]:
    """A function that makes apps; they write under the test's folder only."""
    from monailabel.config import settings

    monkeypatch.setattr(settings, "MONAI_LABEL_SESSION_PATH", str(tmp_path / "stock-sessions"))
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    (tmp_path / "state").mkdir()
    return lambda where=None: StubApp(str(tmp_path / "state"), where or str(studies), {})


@pytest.fixture
def make_client(make_app: Callable[..., StubApp], tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """A function: settings -> a client of a server that runs in this process."""
    opened: list[TestClient] = []

    def make(
        app: Any = None, gate: Any = None, base_url: str = LOCAL, limits: Limits | None = None, **kw: Any
    ) -> TestClient:
        settings = ServerSettings(tmp_path / "state", limits=limits or Limits(), **kw)
        server = create_server(app or make_app(), settings, gate=gate)
        client = TestClient(server, base_url=base_url, raise_server_exceptions=False)
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    """A client of the usual server."""
    return make_client()


@pytest.fixture
def live(make_app: Callable[..., StubApp], tmp_path: Path) -> Iterator[str]:
    """Address of a server on a port of this machine."""
    import uvicorn

    server = create_server(make_app(), ServerSettings(tmp_path / "state"))
    sock = socket.create_server(("127.0.0.1", 0))
    runner = uvicorn.Server(uvicorn.Config(server, log_config=None))
    thread = threading.Thread(target=runner.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not runner.started and time.monotonic() < end:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    runner.should_exit = True
    thread.join(10)
    sock.close()
