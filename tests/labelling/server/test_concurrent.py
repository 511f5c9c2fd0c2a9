# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Many clients at once: nobody waits for another's inference, nobody gets another's answer, memory stays."""

import gc
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("monailabel")

import httpx

SIZE = (30, 20, 5)


def memory_mb():
    with open("/proc/self/statm") as file:  # noqa: PTH123  no path of the project
        return int(file.read().split()[1]) * 4096 / 1e6


def voxels(content):
    """Indices (i, j, k) that are set in a raw NRRD of the studies."""
    data = np.frombuffer(content.partition(b"\n\n")[2], np.uint8).reshape(SIZE, order="F")
    return {tuple(map(int, index)) for index in np.argwhere(data)}


def ask(client, generator):
    """One request of a user's day, checked."""
    kind = generator.choice(("info", "click", "click", "auto", "next", "save", "session"))
    image = generator.choice("abc")
    if kind == "info":
        assert client.get("/info/").json()["labels"] == ["organ"]
    elif kind == "click":
        point = [generator.randrange(size) for size in SIZE]
        params = json.dumps({"foreground": [point], "label": "organ", "result_extension": ".nrrd"})
        reply = client.post(f"/infer/prompted_2d?image={image}&output=image", data={"params": params})
        assert reply.status_code == 200, reply.text
        assert voxels(reply.content) == {tuple(point)}
    elif kind == "auto":
        assert client.post(f"/infer/automatic?image={image}").status_code == 200
    elif kind == "next":
        assert client.post("/activelearning/first", json={}).json().get("id") in {"a", "b", "c", None}
    elif kind == "save":
        reply = client.put(f"/datastore/label?image={image}", files={"label": ("x.nii.gz", b"label")})
        assert reply.json() == {"image": image, "label": image}
    else:
        made = client.put("/session/", files={"files": ("x.nii.gz", b"x" * 1000)}).json()["session_id"]
        assert client.delete(f"/session/{made}").status_code == 200


def run_clients(address, seconds, clients=8):
    """How many requests so many clients made in so many seconds."""
    end = time.monotonic() + seconds

    def one(seed):
        generator, count = random.Random(seed), 0
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
            while time.monotonic() < end:
                ask(client, generator)
                count += 1
        return count

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(one, range(clients)))


def test_eight_clients(live):
    assert run_clients(live, seconds=4) > 8


@pytest.mark.slow
def test_eight_clients_for_five_minutes(live):
    run_clients(live, seconds=20)
    gc.collect()
    before = memory_mb()
    count = run_clients(live, seconds=300)
    gc.collect()
    assert memory_mb() - before < 100, f"{count} requests"


def test_info_during_an_inference(live):
    params = {"params": json.dumps({"seconds": 3.0})}
    with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=live, timeout=30, trust_env=False) as client:
        client.get("/info/")
        asked = [
            pool.submit(httpx.post, f"{live}/infer/automatic?image=a", data=params, timeout=30)
            for _ in range(4)
        ]
        time.sleep(0.3)
        times = []
        for _ in range(10):
            start = time.perf_counter()
            assert client.get("/info/").status_code == 200
            times.append(time.perf_counter() - start)
        assert not any(one.done() for one in asked)
        assert sorted(times)[5] < 0.1
        assert all(one.result().status_code == 200 for one in asked)


def test_too_many_inferences_are_told_to_wait(make_client):
    from monai_effsam.labelling.server import Limits

    client = make_client(limits=Limits(running=1, waiting=1))
    params = {"params": json.dumps({"seconds": 0.5})}
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: client.post("/infer/automatic?image=a", data=params), range(4)))
    assert sorted(reply.status_code for reply in replies) == [200, 200, 429, 429]
    assert {tuple(reply.json()) for reply in replies if reply.status_code == 429} == {("detail",)}
    assert threading.active_count() < 60
