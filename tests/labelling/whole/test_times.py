# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a user waits, request to reply over HTTP, with the models that ship; medians, by the clock.

    python -m pytest -m slow --log-cli-level=INFO tests/labelling/whole/test_times.py

Times are asserted where the machine has nothing else to do; elsewhere they are logged alone.
"""

import json
import logging
import os
import statistics
import time

import pytest

from tests.labelling.whole.conftest import write_scan

pytest.importorskip("monailabel")
httpx = pytest.importorskip("httpx")
logger = logging.getLogger(__name__)
pytestmark = pytest.mark.slow
IDLE = 0.5
"""Load of the machine, below which its clock tells of us."""


@pytest.fixture(scope="module")
def load():
    return os.getloadavg()[0]


def waits(running, requests):
    """Median wait [ms] for the answers to (task, image, params)."""
    times = []
    with httpx.Client(base_url=running.address, timeout=120, trust_env=False) as client:
        client.get("/info/")
        for task, image, params in requests:
            start = time.perf_counter()
            reply = client.post(f"/infer/{task}?image={image}", data={"params": json.dumps(params)})
            times.append(1000 * (time.perf_counter() - start))
            assert reply.status_code == 200, reply.text
    return statistics.median(times)


def told(what, found, most, load):
    logger.info("%s: %.0f ms; target %d ms; load %.1f", what, found, most, load)
    assert found < most or load > IDLE


def test_times_of_pictures(shipped, pictures, load):
    shipped.app.loop.scorer.stop()
    names = [path.stem for path in pictures]
    waits(shipped, [("automatic", names[-1], {}), ("prompted_2d", names[-1], {"foreground": [[50, 50, 0]]})])
    shipped.app.service.cache.clear()
    fresh = [("automatic", name, {}) for name in names[:6]]
    told("first automatic mask of an unseen picture", waits(shipped, fresh), 400, load)
    told("automatic mask of an embedded picture", waits(shipped, fresh * 3), 120, load)
    clicks = [
        ("prompted_2d", names[0], {"foreground": [[60 + n, 70, 0]], "slice": 0, "label": "o"})
        for n in range(20)
    ]
    told("first click on a picture", waits(shipped, clicks[:1]), 400, load)
    told("second click on a seen picture", waits(shipped, clicks[1:]), 100, load)


def test_time_of_a_scan(serve, one_thread, tmp_path, load):
    (tmp_path / "studies").mkdir()
    truth = write_scan(tmp_path / "studies" / "scan.nii.gz", (512, 512, 32))
    running = serve(tmp_path / "studies", tmp_path / "state", modality="ct")
    running.app.loop.scorer.stop()
    first, last = ends(truth)
    box = [last[0], first[0], last[1], first[1], 14, 14]
    found = waits(running, [("prompted_3d", "scan", {"roi": [int(v) for v in box], "label": "o"})])
    told("32 slices of 512 x 512, prompted on one", found, 10_000, load)


def ends(truth):
    """First and last voxel of a mask along each axis."""
    places = truth.nonzero()
    return [axis.min() for axis in places], [axis.max() for axis in places]
