# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""GET /info/: what the viewers build their panels from. Answered while inferences and trainings run."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.responses import Response

from monai_effsam.labelling.server.auth import Role, require
from monai_effsam.labelling.server.replies import json_reply, without_paths
from monai_effsam.labelling.server.state import ServerState

__all__ = ["info_router"]


def info_router(state: ServerState) -> APIRouter:
    """The route of the app's description."""
    router = APIRouter(prefix="/info", dependencies=[Depends(require(Role.USER))])

    @router.get("/")
    def info() -> Response:
        return json_reply(without_paths(state.app.info()))

    return router
