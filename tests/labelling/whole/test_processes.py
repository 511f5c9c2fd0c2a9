# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Servers as processes: killed with -9 at any moment and started again; and MONAI Label's stock server with our app."""

import json
import logging
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

pytest.importorskip("monailabel")
httpx = pytest.importorskip("httpx")
logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.slow, pytest.mark.integration]


@pytest.fixture
def studies(tmp_path):
    """Eight pictures of a disc."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for n in range(8):
        picture = np.random.RandomState(n).randint(0, 60, (64, 64, 3)).astype(np.uint8)
        cv2.circle(picture, (20 + 3 * n, 30), 12, (200, 200, 200), -1)
        cv2.imwrite(str(folder / f"x{n}.png"), picture)
    return folder


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@contextmanager
def process_of(folder, *words, **kw):
    """A process that serves at a port, and its client once it answers; killed at the end if it still runs."""
    port = free_port()
    with (folder / "log").open("ab") as log:
        command = [sys.executable, "-m", *words, "--port", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, **kw)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            for _ in range(1200):
                assert process.poll() is None, (folder / "log").read_text()[-3000:]
                try:
                    client.get("/info/").raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            yield process, client
    finally:
        process.kill()
        process.wait(20)


def test_killed_while_a_model_is_published(studies, tmp_path, tiny_model, tiny_promptable):
    state = tmp_path / "state"
    words = (
        "monai_effsam.cli", "label", "--studies", str(studies), "--state", str(state), "--modality", "endoscopy",
        "--model", str(tiny_model), "--conf", f"prompted_model={tiny_promptable}",
    )  # fmt: skip
    weights, models, last = tiny_model.read_bytes(), state / "model" / "self_prompting", 0
    for attempt in range(4):
        with process_of(tmp_path, *words) as (process, client):
            told = client.post(
                "/infer/automatic?image=x0&output=json"
            )  # of the version that was published last
            assert told.status_code == 200, told.text
            assert not list(models.glob("current.json.*"))
            names = {path.name for path in models.glob("v*")}
            assert all((models / name / "model.json").is_file() for name in names)
            assert len(names) >= min(last, 1)
            threading.Timer(
                random.Random(attempt).uniform(0.2, 2.5), process.send_signal, (signal.SIGKILL,)
            ).start()
            try:
                while True:
                    reply = client.put("/model/automatic", files={"file": ("model.pt", weights)})
                    assert reply.status_code == 200, reply.text
                    last = int(reply.json()["version"][1:])
            except httpx.HTTPError:
                assert process.wait(20) == -signal.SIGKILL
        pointed = json.loads((models / "current.json").read_bytes())["version"] if last else None
        assert pointed is None or int(pointed[1:]) >= last  # what was answered is there
    assert last > 0


def test_the_stock_server_with_our_app(studies, tmp_path, root, tiny_model, tiny_promptable):
    shutil.copytree(root / "apps" / "effsam", tmp_path / "effsam")  # the stock server writes into it
    conf = {"modality": "endoscopy", "model": str(tiny_model), "prompted_model": str(tiny_promptable)}
    words = [word for pair in conf.items() for word in ("--conf", *pair)]
    stock = ("monailabel.main", "start_server", "--app", str(tmp_path / "effsam"), "--studies", str(studies))
    with process_of(tmp_path, *stock, "--host", "127.0.0.1", *words) as (_, client):
        info = client.get("/info/").json()
        assert set(info["models"]) == {"automatic", "class_prompt", "prompted_2d", "prompted_3d"}
        sample = client.post("/activelearning/combined", json={"client_id": "ann"}).json()
        assert sample["id"].startswith("x")
        reply = client.post("/infer/automatic?image=x0&output=image")
        assert reply.content.startswith(b"NRRD")
        clicks = {"foreground": [[20, 30, 0]], "slice": 0, "label": "polyp"}
        reply = client.post("/infer/prompted_2d?image=x0&output=image", data={"params": json.dumps(clicks)})
        assert reply.content.startswith(b"NRRD")
        for n in range(8):
            label = np.zeros((64, 64), np.uint8)
            cv2.circle(label, (20 + 3 * n, 30), 12, 1, -1)
            file = {"label": ("x.png", cv2.imencode(".png", label)[1].tobytes())}
            params = {"params": json.dumps({"label_info": [{"name": "polyp", "idx": 1}]})}
            reply = client.put(f"/datastore/label?image=x{n}", files=file, data=params)
            assert reply.status_code == 200, reply.text
        assert client.get("/info/").json()["datastore"]["completed"] == 8
        assert client.post("/train/effsam", json={"epochs": 1}).json()["status"] in {"SUBMITTED", "RUNNING"}
        end = time.monotonic() + 300
        while (done := client.get("/train/").json())["status"] in {"SUBMITTED", "RUNNING"}:
            assert time.monotonic() < end, done
            time.sleep(0.5)
        assert done["status"] == "DONE", done
        assert client.get("/info/").json()["train_stats"]["effsam"]["total_epochs"] == 1
