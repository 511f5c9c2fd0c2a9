# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""POST /infer/{model}: a mask for an image of the store, of a session, or one that comes along."""

from __future__ import annotations

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, UploadFile
from starlette.responses import Response

from monai_effsam.labelling.server.auth import Role, require
from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.names import IMAGE_SUFFIXES, LABEL_SUFFIXES
from monai_effsam.labelling.server.parameters import infer_parameters, read_object
from monai_effsam.labelling.server.replies import mask_reply, without_paths
from monai_effsam.labelling.server.state import ServerState
from monai_effsam.labelling.server.uploads import kept_upload

__all__ = ["Output", "infer_router"]


class Output(StrEnum):
    """Forms of the reply."""

    ALL = "all"
    IMAGE = "image"
    JSON = "json"


def infer_router(state: ServerState) -> APIRouter:
    """The route of inferences."""
    router = APIRouter(prefix="/infer", dependencies=[Depends(require(Role.USER))])

    @router.post("/{model}")
    async def infer(
        model: str,
        image: str = "",
        session_id: str = "",
        output: Output = Output.ALL,
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        label: Annotated[UploadFile | None, File()] = None,
    ) -> Response:
        request = _request(state, model, params)

        def work() -> Response:
            with ExitStack() as stack:
                path = stack.enter_context(kept_upload(file, state.uploads, IMAGE_SUFFIXES))
                drawn = stack.enter_context(kept_upload(label, state.uploads, LABEL_SUFFIXES))
                if drawn is not None:
                    request["label_path"] = str(drawn)
                request["image"] = str(path) if path else _image(state, image, session_id, request)
                return _answer(state.app.infer(request), output)

        return await state.inference.run(work)

    return router


def _request(state: ServerState, model: str, params: str) -> dict[str, Any]:
    """What the app is asked, from what the client sends, but for the image."""
    task = state.app.tasks.get(model)
    if task is None:
        raise Refusal(404, "model: there is none of this name; GET /info/ lists them.")
    given = read_object(params, "params", state.settings.limits)
    return {"model": model, **infer_parameters(given, task.config(), task.labels)}


def _image(state: ServerState, image: str, session: str, request: dict[str, Any]) -> str:
    """The id of an image of the store, or the path of a session's image."""
    if session:
        request.pop("save_label", None)
        return str(state.sessions.path(session))
    if not image:
        raise Refusal(400, "image: none is named, expected an image, a session or a file.")
    if not state.has_image(image):
        raise Refusal(404, "image: there is none of this id.")
    return image


def _answer(result: dict[str, Any] | None, output: Output) -> Response:
    """The reply to what the app answered; its file is read and removed."""
    found = result or {}
    mask = None
    if found.get("file") and Path(found["file"]).is_file():
        path = Path(found["file"])
        mask = (path.name, path.read_bytes())
        path.unlink(missing_ok=True)
    if output is Output.IMAGE and mask is None:
        raise Refusal(404, "image: this model answers without a mask. Ask for output=json.")
    return mask_reply(mask, without_paths(found.get("params") or {}), output.value)
