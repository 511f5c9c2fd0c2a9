# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""/session: an image that exists only in the viewer. No archives: they are what traversal and bombs come in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, File, UploadFile
from starlette.responses import Response

from monai_effsam.labelling.server.auth import Role, require
from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.names import IMAGE_SUFFIXES
from monai_effsam.labelling.server.replies import file_reply, json_reply
from monai_effsam.labelling.server.state import ServerState
from monai_effsam.labelling.server.uploads import take_upload

__all__ = ["session_router"]


def session_router(state: ServerState) -> APIRouter:
    """The routes of sessions."""
    router = APIRouter(prefix="/session", dependencies=[Depends(require(Role.USER))])
    sessions = state.sessions

    @router.put("/")
    def create(
        files: Annotated[list[UploadFile], File()], uncompress: bool = False, expiry: int = 0
    ) -> Response:
        if uncompress:
            raise Refusal(400, "uncompress: archives are not taken. Send the files themselves.")
        if len(files) > state.settings.limits.files:
            raise Refusal(413, "files: are too many.")
        taken: list[tuple[Path, str]] = []
        try:
            for file in files:
                path = take_upload(file, state.uploads, IMAGE_SUFFIXES)
                taken.append((path, path.name[path.name.index(".") :]))
            session = sessions.add(taken, expiry)
        finally:
            for path, _ in taken:
                path.unlink(missing_ok=True)
        return json_reply({"session_id": session.name, "session_info": session.to_json(session.created)})

    @router.get("/{session_id}")
    def get(session_id: str, update_ts: bool = False, image: bool = False) -> Response:
        session = sessions.get(session_id, touch=update_ts)
        if image:
            path = sessions.path(session_id)
            if not path.is_file():
                raise Refusal(404, "session: its image is a series of files.")
            return file_reply(path)
        return json_reply(session.to_json(sessions.used(session_id)))

    @router.delete("/{session_id}")
    def remove(session_id: str) -> Response:
        used = sessions.used(session_id) if sessions.get(session_id, touch=False) else 0.0
        return json_reply(sessions.remove(session_id).to_json(used))

    return router
