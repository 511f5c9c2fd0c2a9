# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The whole app over HTTP: a folder of pictures and a scan, the models that ship or small ones, a server on a port."""

import shutil
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pytest


class Running(NamedTuple):
    """A server.

    Args:
        address: of it.
        app: behind it.
        stop: ends it.
    """

    address: str
    app: Any
    stop: Callable[[], None]


@pytest.fixture(scope="session", autouse=True)
def _quiet_imports() -> None:
    """What MONAI Label imports warns of much that is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import monailabel.interfaces.app  # noqa: F401


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As `effsam label` has it: threads of one inference keep no core from the others."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pictures(root: Path) -> list[Path]:
    """Ultrasound pictures."""
    return sorted((root / "demo" / "images").glob("*.jpg"))


def write_scan(path: Path, size: tuple[int, int, int] = (64, 64, 12)) -> np.ndarray:
    """A CT with one bright ellipsoid, sagittal as stored; where it is."""
    centre = (0.4 * size[0], 0.5 * size[1], 0.45 * size[2])
    radii = (0.15 * size[0], 0.2 * size[1], 0.3 * size[2])
    i, j, k = np.ogrid[: size[0], : size[1], : size[2]]
    inside = sum(((n - c) / r) ** 2 for n, c, r in zip((i, j, k), centre, radii, strict=True)) < 1
    noise = np.random.default_rng(0).normal(0, 15, size)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]) @ np.diag(
        [400 / size[0], 400 / size[1], 5.0]
    )
    nibabel.save(nibabel.Nifti1Image((np.where(inside, 180, -20) + noise).astype(np.int16), affine), path)
    return np.asarray(inside)


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., Running]]:
    """A function: folder, state, settings of the app -> a server."""
    import uvicorn

    from monai_effsam.labelling.app import LabellingApp
    from monai_effsam.labelling.server import ServerSettings, create_server

    running: list[Running] = []

    def start(studies: Path | str, state: Path, **conf: str) -> Running:
        state.mkdir(exist_ok=True)
        app = LabellingApp(str(state), str(studies), conf)
        sock = socket.create_server(("127.0.0.1", 0))
        runner = uvicorn.Server(uvicorn.Config(create_server(app, ServerSettings(state)), log_config=None))
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        end = time.monotonic() + 60
        while not runner.started and time.monotonic() < end:
            time.sleep(0.02)

        def stop() -> None:
            runner.should_exit = True
            thread.join(30)
            sock.close()

        running.append(Running(f"http://127.0.0.1:{sock.getsockname()[1]}", app, stop))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture(scope="module")
def shipped(
    serve: Callable[..., Running],
    one_thread: None,
    pictures: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Running:
    """The models that ship, over the pictures."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "studies").mkdir()
    for path in pictures:
        shutil.copy(path, folder / "studies")
    return serve(folder / "studies", folder / "state", modality="ultrasound")
