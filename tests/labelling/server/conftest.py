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

LOCAL = "http://127.0.0.1:8000"


@pytest.fixture(scope="session", autouse=True)
def _quiet_imports() -> None:
    """What MONAI Label imports warns of much that is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import fastapi.testclient  # noqa: F401
        import monailabel.interfaces.app  # noqa: F401


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Three volumes, the first stored as LPS with uneven spacing, as DICOM conversions are."""
    import SimpleITK as sitk

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
def make_app(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that makes apps; they write under the test's folder only."""
    from monailabel.config import settings

    from tests.labelling.server.stubs import StubApp, StubService

    monkeypatch.setattr(settings, "MONAI_LABEL_SESSION_PATH", str(tmp_path / "stock-sessions"))
    monkeypatch.setattr("monai_effsam.labelling.app.open_service", lambda folder, conf: StubService())
    (tmp_path / "state").mkdir(exist_ok=True)
    return lambda where=None: StubApp(str(tmp_path / "state"), where or str(studies), {})


@pytest.fixture
def make_client(make_app: Callable[..., Any], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A function: settings -> a client of a server that runs in this process."""
    from fastapi.testclient import TestClient

    from monai_effsam.labelling.server import Limits, ServerSettings, create_server

    opened: list[Any] = []

    def make(app: Any = None, gate: Any = None, limits: Any = None, **kw: Any) -> Any:
        settings = ServerSettings(tmp_path / "state", limits=limits or Limits(), **kw)
        server = create_server(app or make_app(), settings, gate=gate)
        client = TestClient(server, base_url=LOCAL, raise_server_exceptions=False)
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: Callable[..., Any]) -> Any:
    """A client of the usual server."""
    return make_client()


@pytest.fixture
def live(make_app: Callable[..., Any], tmp_path: Path) -> Iterator[str]:
    """Address of a server on a port of this machine."""
    import uvicorn

    from monai_effsam.labelling.server import ServerSettings, create_server

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
