# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The same rounds through a running server, as a viewer would: next sample, label, train, infer."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.client import MONAILabelClient
from numpy.typing import NDArray

from monai_effsam.data.io import read_image, read_label
from monai_effsam.data.sets import Case
from monai_effsam.errors import DataError, UsageError
from monai_effsam.labelling.learning.grid import label_on_grid
from monai_effsam.labelling.simulating.rounds import clicks_to_mend
from monai_effsam.metrics.overlap import dice_score

__all__ = ["ServedApp", "served"]

_READY = 180.0  # a server that has not answered for so long does not come [s]


@contextmanager
def served(pool: Sequence[Case], folder: Path, model: Path, cache: Path) -> Iterator[str]:
    """A new `effsam label`, as users start it, on copies of images; its address.

    Args:
        pool: images that it serves, all of one modality.
        folder: for the copies and all that the server writes; emptied first.
        model: that it starts with.
        cache: folder of encodings, which several servers may share.

    Raises:
        DataError: it did not start.
    """
    shutil.rmtree(folder, ignore_errors=True)
    studies = folder / "studies"
    studies.mkdir(parents=True)
    for case in pool:
        shutil.copy(case.image, studies)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "monai_effsam.cli", "label", "--quiet", "--studies", str(studies),
        "--port", str(port), "--model", str(model), "--modality", pool[0].modality, "--state", str(folder / "state"),
        "--conf", f"cache={cache}", "--conf", f"targets={','.join(pool[0].values.values())}",
    ]  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command) as server:
        try:
            _wait_for(address, server)
            yield address
        finally:
            server.terminate()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _READY
    while time.monotonic() < end and server.poll() is None:
        try:
            MONAILabelClient(address).info()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise DataError(f"{address}: the server did not start. Its own words are above, and in its logs/app.log.")


class ServedApp:
    """One run against a server that serves the pool's images and has no labels yet.

    Args:
        url: of the server.
        pool: its images, whose ids are the files' names without ending.
        test: images to measure on; sent as sessions, so that no strategy ever offers them.
        seed: of the random first round.
        trainer: name of the server's trainer; the first one by default.
        options: of the trainer.
        settle: time for the server's background scores after each training [s].

    Raises:
        UsageError: the server has labels, or lacks an image of the pool.
    """

    def __init__(
        self,
        url: str,
        pool: Sequence[Case],
        test: Sequence[Case],
        seed: int,
        *,
        trainer: str | None = None,
        options: Mapping[str, Any] | None = None,
        settle: float = 0.0,
    ) -> None:
        self._client = MONAILabelClient(url, client_id=f"oracle-{seed}")
        self._cases = {case.image.stem: case for case in pool}
        self._test, self._seed, self._settle = list(test), seed, settle
        info = self._client.info()
        self._trainer = trainer or next(iter(info["trainers"]))
        self._options = dict(options or {})
        self._labelled: set[str] = set()
        if info["datastore"]["completed"] or info["datastore"]["total"] < len(self._cases):
            raise UsageError(
                f"{url}: serves {info['datastore']['total']} images of which {info['datastore']['completed']} are "
                f"labelled, expected {len(self._cases)} and none. Start it on a fresh folder."
            )

    def choose(self, strategy: str, count: int, round_: int) -> list[str]:
        """Images that the server's strategy gives; in round 0 at random."""
        if round_ == 0:
            free = sorted(self._cases.keys() - self._labelled)
            drawn = np.random.RandomState([self._seed, 0]).permutation(len(free))[:count]
            return [free[i] for i in drawn]
        names = [self._client.next_sample(strategy, {}).get("id") for _ in range(count)]
        return [name for name in dict.fromkeys(names) if name]

    def label(self, names: Sequence[str]) -> int:
        """The oracle mends the server's masks, and submits."""
        clicks = 0
        for name in names:
            case = self._cases[name]
            truth = self._truth(case)
            clicks += clicks_to_mend(self._answer(case, {"image_id": name}), truth > 0)
            info = [{"name": target, "idx": value} for value, target in case.values.items()]
            self._client.save_label(name, str(case.mask), "final", {"label_info": info})
        self._labelled.update(names)
        return clicks

    def train(self) -> None:
        """Start the training and wait for its end.

        Raises:
            DataError: it failed.
        """
        self._client.train_start(self._trainer, dict(self._options))
        while True:
            status = self._client.train_status().get("status")
            if status in ("DONE", "ERROR", "STOPPED"):
                break
            time.sleep(0.5)
        if status != "DONE":
            raise DataError(
                f"{self._trainer}: training ended as {status}, expected DONE. Read the server's log."
            )
        time.sleep(self._settle)

    def dice(self) -> float:
        """Over test images that hold something or where something was found."""
        scores = []
        for case in self._test:
            session = self._client.create_session(str(case.image))["session_id"]
            mask, truth = self._answer(case, {"image_id": "", "session_id": session}), self._truth(case) > 0
            self._client.remove_session(session)
            if mask.any() or truth.any():
                scores.append(dice_score(mask, truth))
        return float(np.mean(scores)) if scores else 0.0

    def _answer(self, case: Case, which: Mapping[str, str]) -> NDArray[np.bool_]:
        path, _ = self._client.infer("automatic", params={"result_extension": ".nii.gz"}, **which)
        if not path:
            return np.zeros_like(self._truth(case), bool)
        mask = label_on_grid(Path(path), read_image(case.image, modality=case.modality))[0] > 0
        Path(path).unlink(missing_ok=True)
        return mask

    def _truth(self, case: Case) -> NDArray[np.uint8]:
        return np.asarray(read_label(case.mask, read_image(case.image, modality=case.modality))[0])
