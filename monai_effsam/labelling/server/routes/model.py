# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""/model/{model}: the weights in use, and new ones by an admin: tensors only, nothing that is code."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, UploadFile
from starlette.responses import Response

from monai_effsam.labelling.server.auth import Role, require
from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.replies import file_reply, json_reply
from monai_effsam.labelling.server.state import ServerState
from monai_effsam.labelling.server.uploads import kept_upload

__all__ = ["model_router"]

_SUFFIXES = (".pt", ".pth", ".safetensors")


def model_router(state: ServerState) -> APIRouter:
    """The routes of weights."""
    router = APIRouter(prefix="/model", dependencies=[Depends(require(Role.USER))])

    @router.get("/info/{model}")
    def info(model: str) -> Response:
        path = _weights(state, model)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return json_reply({"checksum": f"SHA256:{digest}", "modified_time": int(path.stat().st_mtime)})

    @router.get("/{model}")
    def download(model: str) -> Response:
        return file_reply(_weights(state, model))

    @router.put("/{model}", dependencies=[Depends(require(Role.ADMIN))])
    def upload(model: str, file: Annotated[UploadFile, File()]) -> Response:
        if model not in state.app.tasks:
            raise Refusal(404, "model: there is none of this name; GET /info/ lists them.")
        with kept_upload(file, state.uploads, _SUFFIXES) as path:
            assert path is not None
            _check_tensors(path)
            return json_reply({"model": model, "version": state.app.take_model(model, path)})

    return router


def _weights(state: ServerState, model: str) -> Path:
    task: Any = state.app.tasks.get(model)
    found = task.get_path() if task is not None else None
    path = Path(found) if found else None
    if path is None or not path.is_file():
        raise Refusal(404, "model: there are no weights of this name.")
    return path


def _check_tensors(path: Path) -> None:
    """Refuse a file that needs code to load, before anything else reads it."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):
                return
        with zipfile.ZipFile(path) as packed:  # torch's form; TorchScript has its code beside the tensors
            if any("/code/" in name or name.endswith("/constants.pkl") for name in packed.namelist()):
                raise ValueError("TorchScript")
        torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise Refusal(422, "file: needs code to load, expected plain tensors.") from error
    except (
        SafetensorError,
        zipfile.BadZipFile,
        RuntimeError,
        ValueError,
        OSError,
        EOFError,
        KeyError,
    ) as error:
        raise Refusal(422, "file: holds no plain tensors; TorchScript and code are not taken.") from error
