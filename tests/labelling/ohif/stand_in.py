# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A stand-in for the labelling server: the same routes and forms of reply, models that threshold and draw discs.

What it sends is worked out from the studies' own arrays, so that a mask that the viewer shows in another place, or
turned over, is seen. Its masks of volumes run against the slices, as some readers have them.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import pydicom
from fastapi import FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from numpy.typing import NDArray

from monai_effsam.data.io import find_inputs, read_image, write_dicom_seg
from monai_effsam.labelling.server.viewer import viewer_router
from monai_effsam.targets import own_target

from .studies import Study  # noqa: TID252  tests are no package on the path

RADIUS = 6


def automatic(study: Study) -> NDArray[np.uint8]:
    """(slices, rows, columns): 1 the bright, 2 a strip at the left."""
    mask = (study.pixels > 150).astype(np.uint8)
    mask[:, :, :5] = 2
    return mask


def prompted(study: Study, params: dict[str, Any]) -> NDArray[np.uint8]:
    """Discs around points, less discs around others, filled boxes; in 3D through all slices."""
    slices, rows, columns = study.pixels.shape
    y, x = np.mgrid[:rows, :columns]
    flat = np.zeros((rows, columns), bool)
    for i, j, _ in params.get("foreground", []):
        flat |= (x - i) ** 2 + (y - j) ** 2 < RADIUS**2
    if params.get("roi"):
        x0, x1, y0, y1, _, _ = params["roi"]
        flat |= (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    for i, j, _ in params.get("background", []):
        flat &= (x - i) ** 2 + (y - j) ** 2 >= RADIUS**2
    mask = np.zeros((slices, rows, columns), np.uint8)
    mask[params.get("slice", slice(None))] = flat
    return mask


def nrrd(study: Study, mask: NDArray[np.uint8]) -> bytes:
    """The file; volumes with their slices in reverse, and so told in the header."""
    directions = np.eye(3) if study.directions is None else study.directions.copy()
    origin = np.zeros(3) if study.origin is None else study.origin
    if study.directions is not None:
        mask = mask[::-1]
        origin = origin + (len(mask) - 1) * directions[2]
        directions[2] *= -1
    steps = " ".join("(" + ",".join(f"{v:.9g}" for v in step) + ")" for step in directions)
    head = (
        "NRRD0004\n# made by a test\ntype: unsigned char\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(map(str, study.sizes))}\nspace directions: {steps}\nkinds: domain domain domain\n"
        f"encoding: raw\nspace origin: ({','.join(f'{v:.9g}' for v in origin)})\n\n"
    )
    return head.encode() + np.ascontiguousarray(mask).tobytes()


INFO: dict[str, Any] = {
    "name": "stand-in",
    "labels": ["organ", "strip", "of_another_modality"],
    "models": {
        "automatic": {
            "type": "segmentation", "labels": {"organ": 1, "strip": 2}, "dimension": 3, "config": {},
            "modalities": {word: ["organ", "strip"] for word in ("CT", "MR", "US", "ES")},
        },
        "class_prompt": {
            "type": "segmentation", "labels": {"organ": 1, "strip": 2}, "dimension": 3,
            "config": {"target": ["organ", "strip", "nothing"]},
        },
        "prompted_2d": {"type": "deepgrow", "labels": {"organ": 1}, "dimension": 2, "config": {}},
        "prompted_3d": {"type": "deepgrow", "labels": {"organ": 1}, "dimension": 3, "config": {}},
    },
    "strategies": {"first": {}},
    "trainers": {"effsam": {}},
    "train_stats": {},
}  # fmt: skip


class StandIn:
    """The server, and what it was asked.

    Args:
        studies: by name.
        archive: address of the PACS; empty for none.
        dist: folder of OHIF.
        folder: where labels go.
    """

    def __init__(self, studies: dict[str, Study], archive: str, dist: Path, folder: Path) -> None:
        self.studies = {study.series: study for study in studies.values()}
        self.archive, self.folder = archive, folder
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.labels: dict[str, tuple[list[dict[str, Any]], bytes]] = {}
        self.refuse = ""
        self.training, self.trained, self.empty = 0, False, False
        self.app = FastAPI()
        self._add_routes()
        self.app.include_router(viewer_router(dist))

    def _study(self, image: str) -> Study:
        if image not in self.studies:
            raise HTTPException(404, "image: there is none of this id.")
        return self.studies[image]

    def _add_routes(self) -> None:
        @self.app.get("/info/")
        def info() -> Any:
            return INFO | {"train_stats": {"effsam": {"epoch": 4 - self.training, "total_epochs": 4}}}

        @self.app.post("/infer/{model}")
        def infer(model: str, image: str, params: Annotated[str, Form()] = "{}") -> Response:
            asked = json.loads(params)
            self.asked.append((model, image, asked))
            if self.refuse:
                raise HTTPException(422, self.refuse)
            return self._mask(model, self._study(image), asked)

        @self.app.put("/datastore/label")
        def save(
            image: str, tag: str, label: Annotated[UploadFile, File()], params: Annotated[str, Form()] = "{}"
        ) -> Any:
            assert tag == "final"
            names = json.loads(params)["label_info"]
            self.labels[image] = (names, label.file.read())
            self._store(self._study(image), names, self.labels[image][1])
            return {"image": image, "label": image}

        @self.app.post("/activelearning/{strategy}")
        def following(strategy: str) -> Any:
            left = [series for series in self.studies if series not in self.labels]
            return {"id": left[0]} if left else {}

        @self.app.post("/train/{trainer}")
        def train(trainer: str) -> Any:
            self.training, self.trained = 4, True
            return {"id": "1", "status": "RUNNING"}

        @self.app.get("/train/")
        def trainings(all: bool = False) -> Any:  # noqa: A002  the clients' name
            assert all
            self.training = max(self.training - 1, 0)
            return [{"id": "1", "status": "RUNNING" if self.training else "DONE"}] if self.trained else []

        @self.app.get("/proxy/dicom/qido/{path:path}")
        @self.app.get("/proxy/dicom/wado/{path:path}")
        def proxy(path: str, request: Request) -> Response:
            accept = {"accept": request.headers.get("accept", "*/*")}
            found = httpx.get(
                f"{self.archive}/dicom-web/{path}", params=request.query_params, headers=accept, timeout=60
            )
            return Response(found.content, found.status_code, media_type=found.headers.get("content-type"))

    def _mask(self, model: str, study: Study, asked: dict[str, Any]) -> Response:
        names = {"organ": 1, "strip": 2}
        if model == "automatic":
            mask = automatic(study)
        elif model == "class_prompt":
            names = {asked["target"]: 1}
            value = {"organ": 1, "strip": 2}.get(asked["target"], 9)
            mask = (automatic(study) == value).astype(np.uint8)
        else:
            names = {asked["label"]: 1}
            mask = prompted(study, asked)
        mask = mask * (not self.empty)
        told = {"label_names": names, "latencies": {"total": 0.01}}
        parts = [("params", None, "application/json", json.dumps(told).encode())]
        parts += [("image", "mask.nrrd", "application/octet-stream", nrrd(study, mask))]
        return _multipart(parts)

    def _store(self, study: Study, names: list[dict[str, Any]], file: bytes) -> None:
        """The label as a DICOM Segmentation into the PACS."""
        mask = read_label(study, file)
        with tempfile.TemporaryDirectory() as temporary:
            [source] = find_inputs([study.files[0].parent])
            image = read_image(source)
            places = [pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in study.files]
            order = [
                places.index(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID)
                for p in image.sources
            ]
            targets = [_target(one["name"], one["idx"]) for one in names]
            seg = write_dicom_seg(image, np.ascontiguousarray(mask[order]), targets, Path(temporary))
            if seg is not None and self.archive:
                httpx.post(
                    f"{self.archive}/instances", content=seg.read_bytes(), timeout=60
                ).raise_for_status()


def _target(name: str, value: int) -> Any:
    return replace(own_target(name, "ct"), value=value)


def read_label(study: Study, file: bytes) -> NDArray[np.uint8]:
    """(slices, rows, columns) of a label that the viewer sent; its header must be the images'."""
    head, _, content = file.partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    assert fields["type"] == "unsigned char"
    assert fields["space"] == "left-posterior-superior"
    assert [int(v) for v in fields["sizes"].split()] == list(study.sizes)
    if study.directions is not None:
        told = fields["space directions"].split()
        steps = np.array([[float(v) for v in step.strip("()").split(",")] for step in told])
        np.testing.assert_allclose(steps, study.directions, atol=1e-4)
        origin = [float(v) for v in fields["space origin"].strip("()").split(",")]
        np.testing.assert_allclose(origin, study.origin, atol=1e-4)
    assert fields["encoding"] == "gzip"
    return np.frombuffer(gzip.decompress(content), np.uint8).reshape(study.pixels.shape)


def _multipart(parts: list[tuple[str, str | None, str, bytes]]) -> Response:
    boundary = "0123456789abcdef"
    body = b""
    for name, file, kind, content in parts:
        told = f'; filename="{file}"' if file else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{told}\r\nContent-Type: {kind}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return Response(
        body + f"--{boundary}--\r\n".encode(), media_type=f"multipart/form-data; boundary={boundary}"
    )
