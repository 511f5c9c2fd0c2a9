# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Eight users of one server with the models that ship: each gets what a single user gets, and nobody waits for /info/.

python -m pytest -m slow --log-cli-level=INFO tests/labelling/whole/test_many_users.py   # five minutes
"""

import gc
import json
import logging
import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("monailabel")
httpx = pytest.importorskip("httpx")

logger = logging.getLogger(__name__)


def requests_on(pictures):
    """(task, image, params): automatic, class prompts, clicks and boxes on four pictures."""
    found = []
    for number, path in enumerate(pictures[:4]):
        found.append(("automatic", path.stem, {}))
        found.append(("class_prompt", path.stem, {"target": "fetal_head"}))
        for shift in (0, 20):
            point = [60 + shift + 5 * number, 80 + shift, 0]
            found.append(
                ("prompted_2d", path.stem, {"foreground": [point], "slice": 0, "label": f"o{shift}"})
            )
        box = [150, 30 + number, 140, 40, 0, 0]
        found.append(("prompted_3d", path.stem, {"roi": box, "label": "boxed"}))
    return found


def ask(client, request):
    """The mask file and the names of one answer."""
    task, image, params = request
    reply = client.post(f"/infer/{task}?image={image}&output=image", data={"params": json.dumps(params)})
    if reply.status_code == 429:  # all places are taken; a client is told to come again
        time.sleep(0.2)
        return None
    assert reply.status_code == 200, reply.text
    return reply.content


def client_of(running):
    return httpx.Client(base_url=running.address, timeout=120, trust_env=False)


def run_users(running, expected, seconds, users=8):
    """How many answers so many users compared in so many seconds."""
    end, stores = time.monotonic() + seconds, threading.Lock()

    def one(seed):
        generator, count = random.Random(seed), 0
        with client_of(running) as client:
            while time.monotonic() < end:
                kind = generator.random()
                if kind < 0.1:
                    assert client.get("/info/").json()["labels"] == ["breast_lesion", "fetal_head"]
                elif kind < 0.15:
                    asked = {"client_id": f"user{seed}"}
                    assert client.post("/activelearning/combined", json=asked).status_code == 200
                elif kind < 0.2:
                    content = bytes([seed]) * 1000
                    with stores:  # so that the label read back is one's own
                        file = {"label": ("x.nii.gz", content)}
                        name = {"image": generator.choice(list(expected))[1], "tag": "original"}
                        assert client.put("/datastore/label", params=name, files=file).status_code == 200
                        back = {"label": name["image"], "tag": "original"}
                        assert client.get("/datastore/label", params=back).content == content
                else:
                    request = generator.choice(list(expected))
                    found = ask(client, (*request[:2], json.loads(request[2])))
                    assert found in (None, expected[request]), request
                    count += found is not None
        return count

    with ThreadPoolExecutor(users) as pool:
        return sum(pool.map(one, range(users)))


@pytest.fixture(scope="module")
def expected(shipped, pictures):
    """What a single user gets, by request."""
    with client_of(shipped) as client:
        return {(t, i, json.dumps(p)): ask(client, (t, i, p)) for t, i, p in requests_on(pictures)}


def resident():
    """Memory of this process [MB]."""
    with open("/proc/self/statm") as file:  # noqa: PTH123  no path of the project
        return int(file.read().split()[1]) * 4096 / 1e6


def test_eight_users_get_what_one_gets(shipped, expected):
    assert len(set(expected.values())) > len(expected) / 2  # requests that differ, differ
    assert run_users(shipped, expected, seconds=5) > 8


def test_info_is_answered_during_inferences(shipped, pictures):
    stop = threading.Event()

    def busy(number):
        with client_of(shipped) as client:
            while not stop.is_set():
                shipped.app.service.cache.clear()
                ask(client, ("automatic", pictures[number].stem, {}))

    rounds = []
    with ThreadPoolExecutor(2) as pool, client_of(shipped) as client:
        at_work = [pool.submit(busy, number) for number in range(2)]
        for _ in range(3):
            times = []
            for _ in range(10):
                start = time.perf_counter()
                assert client.get("/info/").status_code == 200
                times.append(time.perf_counter() - start)
            rounds.append(statistics.median(times))
        stop.set()
        for one in at_work:
            one.result()
    logger.info("/info/ during inferences: %s ms", [round(1000 * value) for value in rounds])
    assert min(rounds) < 0.1


@pytest.mark.slow
def test_eight_users_for_five_minutes(shipped, expected):
    run_users(shipped, expected, seconds=30)
    gc.collect()
    before = resident()
    count = run_users(shipped, expected, seconds=300)
    gc.collect()
    logger.info("%d answers, %.0f MB more", count, resident() - before)
    assert resident() - before < 100
