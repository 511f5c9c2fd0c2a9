# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam label` over an archive, with the models that ship, and what the same models say of the same files here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pydicom
from numpy.typing import NDArray
from scipy import ndimage

from monai_effsam.labelling.service import LabellingAnswer

from .browser import Browser  # noqa: TID252  tests are no package on the path
from .conftest import free_port, wait_for  # noqa: TID252
from .studies import Study  # noqa: TID252

Masks = dict[str, NDArray[np.bool_]]


def start(orthanc: str, dist: Path, folder: Path, *more: str) -> tuple[str, Callable[[], None]]:
    """`effsam label` over the archive: its address, and what ends it."""
    port = free_port()
    command = [sys.executable, "-m", "monai_effsam.cli", "label", "--studies", f"{orthanc}/dicom-web"]
    command += ["--ohif", str(dist), "--state", str(folder / "state"), "--port", str(port), *more]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def end() -> None:
        process.terminate()
        process.wait(30)

    try:
        wait_for(f"http://127.0.0.1:{port}/login" if more else f"http://127.0.0.1:{port}/info/", 600)
    except OSError as error:
        end()
        raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:]) from error
    return f"http://127.0.0.1:{port}", end


def shown(answer: LabellingAnswer, study: Study) -> Masks:
    """An answer by name, (slices, rows, columns) in the order of the study's files, by the UIDs of the slices."""
    uids = [str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in answer.image.sources]
    own = [str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in study.files]
    mask = answer.mask[[uids.index(uid) for uid in own]]
    return {name: mask == value for name, value in answer.values.items()}


def place(study: Study) -> Path:
    """What the study is for the reader of images."""
    return study.files[0] if len(study.files) == 1 else study.files[0].parent


def same(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether masks agree, but for the last digits of a network that ran with other threads."""
    return 2 * np.count_nonzero(one & other) >= 0.98 * (np.count_nonzero(one) + np.count_nonzero(other))


def middle(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Column and row of the pixel that lies deepest inside."""
    row, column = np.unravel_index(int(ndimage.distance_transform_edt(mask).argmax()), mask.shape)
    return int(column), int(row)


def largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece of a mask."""
    pieces, _ = ndimage.label(mask)
    return np.asarray(pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax()))


def keep_picture(browser: Browser, name: str) -> None:
    """A picture of the page, where they are wanted."""
    if "EFFSAM_PICTURES" in os.environ:
        browser.js("new Promise(done => setTimeout(done, 1500))")
        browser.picture(Path(os.environ["EFFSAM_PICTURES"]) / f"ohif_{name}.png")


def without_label(address: str) -> list[str]:
    """Series that nobody has labelled yet."""
    told = httpx.get(f"{address}/datastore/", params={"output": "all"}).json()["objects"]
    return [uid for uid, one in told.items() if "final" not in one["labels"]]
