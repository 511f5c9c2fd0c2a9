# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""/datastore: images and labels in and out. Ids are looked up in the store; a path is never made from them here."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, UploadFile
from starlette.requests import Request
from starlette.responses import Response

from monai_effsam.labelling.server.auth import Role, require
from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.names import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    check_new_id,
    check_tag,
    suffix_of,
)
from monai_effsam.labelling.server.parameters import label_parameters, read_object
from monai_effsam.labelling.server.replies import file_reply, json_reply, without_paths
from monai_effsam.labelling.server.state import ServerState
from monai_effsam.labelling.server.uploads import kept_upload

__all__ = ["StoreView", "datastore_router"]

_INFO_KEYS = 32


class StoreView(StrEnum):
    """What of the store is wanted."""

    STATS = "stats"
    ALL = "all"
    TRAIN = "train"


def datastore_router(state: ServerState) -> APIRouter:
    """The routes of the store."""
    router = APIRouter(prefix="/datastore", dependencies=[Depends(require(Role.USER))])

    @router.get("/")
    def status(output: StoreView = StoreView.STATS) -> Response:
        if output is StoreView.STATS:
            return json_reply(state.store.status())
        return json_reply(
            without_paths(state.store.json() if output is StoreView.ALL else state.store.datalist())
        )

    _add_image_routes(router, state)
    _add_label_routes(router, state)
    return router


def _add_image_routes(router: APIRouter, state: ServerState) -> None:
    annotator, admin = [Depends(require(Role.ANNOTATOR))], [Depends(require(Role.ADMIN))]

    @router.put("/", dependencies=annotator)
    @router.put("/image", dependencies=annotator)
    def add_image(
        request: Request,
        file: Annotated[UploadFile, File()],
        image: str = "",
        params: Annotated[str, Form()] = "{}",
    ) -> Response:
        name = check_new_id(image or _stem(file.filename))
        info = _image_info(read_object(params, "params", state.settings.limits))
        with kept_upload(file, state.uploads, IMAGE_SUFFIXES) as path, state.store_lock:
            stored = state.store.add_image(name, str(path), {**info, "user": request.state.user.name})
        return json_reply({"image": stored})

    @router.delete("/", dependencies=admin)
    @router.delete("/image", dependencies=admin)
    def remove_image(id: str) -> Response:  # noqa: A002  the clients' name
        state.image_path(id)
        with state.store_lock:
            state.store.remove_image(id)
        return json_reply({})

    @router.head("/image")
    def check_image(image: str, check_sum: str = "") -> Response:
        path = state.image_path(image)
        if check_sum and not _has_sum(path, check_sum):
            raise Refusal(404, "image: its content is another.")
        return Response()

    @router.get("/image")
    def download_image(image: str) -> Response:
        path = state.image_path(image)
        if not path.is_file():
            raise Refusal(404, "image: it is a series of files. Ask the PACS for it.")
        return file_reply(path)

    @router.get("/image/info")
    def image_info(image: str) -> Response:
        state.image_path(image)
        return json_reply(without_paths(state.store.get_image_info(image)))

    @router.put("/image/info", dependencies=annotator)
    def update_image_info(request: Request, image: str, info: Annotated[str, Form()] = "{}") -> Response:
        state.image_path(image)
        values = _image_info(read_object(info, "info", state.settings.limits))
        with state.store_lock:
            state.store.update_image_info(image, {**values, "user": request.state.user.name})
        return json_reply(None)


def _add_label_routes(router: APIRouter, state: ServerState) -> None:
    annotator, admin = [Depends(require(Role.ANNOTATOR))], [Depends(require(Role.ADMIN))]

    @router.put("/label", dependencies=annotator)
    def save_label(
        request: Request,
        image: str,
        label: Annotated[UploadFile, File()],
        tag: str = "final",
        params: Annotated[str, Form()] = "{}",
    ) -> Response:
        tag = check_tag(tag or "final")
        state.image_path(image)
        info = label_parameters(read_object(params, "params", state.settings.limits))
        info["user"] = request.state.user.name
        with kept_upload(label, state.uploads, LABEL_SUFFIXES) as path:
            assert path is not None
            stored = state.app.save_label(
                image, path, tag, info
            )  # stores are safe between threads; a PACS is slow
            told = state.app.on_save_label(image, stored) or {}
        return json_reply({**without_paths(told), "image": image, "label": stored})

    @router.delete("/label", dependencies=admin)
    def remove_label(id: str, tag: str) -> Response:  # noqa: A002  the clients' name
        state.label_path(id, check_tag(tag))
        with state.store_lock:
            state.store.remove_label(id, tag)
        return json_reply({})

    @router.head("/label")
    def check_label(image: str, tag: str) -> Response:
        state.label_path(image, check_tag(tag))
        return Response()

    @router.get("/label")
    def download_label(label: str, tag: str) -> Response:
        return file_reply(state.label_path(label, check_tag(tag)))

    @router.get("/label/info")
    def label_info(label: str, tag: str) -> Response:
        state.label_path(label, check_tag(tag))
        return json_reply(without_paths(state.store.get_label_info(label, tag)))

    @router.put("/label/info", dependencies=annotator)
    def update_label_info(label: str, tag: str, info: Annotated[str, Form()] = "{}") -> Response:
        state.label_path(label, check_tag(tag))
        values = label_parameters(read_object(info, "info", state.settings.limits))
        with state.store_lock:
            state.store.update_label_info(label, tag, values)
        return json_reply(None)


def _stem(filename: str | None) -> str:
    name = (filename or "").replace("\\", "/").rpartition("/")[2]
    suffix = suffix_of(name, IMAGE_SUFFIXES)
    return name[: -len(suffix)] if name.lower().endswith(suffix) else name


def _image_info(given: dict[str, Any]) -> dict[str, Any]:
    """Plain values about an image; what the store and the strategies keep there is theirs."""
    theirs = {"ts", "name", "path", "strategy", "user", "checksum"}
    found = {key: value for key, value in given.items() if key not in theirs}
    plain = all(
        isinstance(value, str | int | float | bool) and len(str(value)) <= 1024 for value in found.values()
    )
    if not plain or len(found) > _INFO_KEYS:
        raise Refusal(400, "params: expected a few plain values about the image.")
    return found


def _has_sum(path: Path, check_sum: str) -> bool:
    algorithm, _, digest = check_sum.rpartition(":")
    if algorithm.upper() not in {"", "SHA256", "SHA512"} or not path.is_file():
        raise Refusal(400, "check_sum: expected SHA256:hex.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, (algorithm or "sha256").lower()).hexdigest() == digest.lower()
