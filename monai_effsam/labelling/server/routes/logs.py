# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""GET /logs/: the last lines of the server's log as plain text, for admins, without paths and addresses."""

from __future__ import annotations

from collections import deque
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import PlainTextResponse, Response

from monai_effsam.labelling.server.auth import Role, require
from monai_effsam.labelling.server.errors import one_line
from monai_effsam.labelling.server.state import ServerState

__all__ = ["logs_router"]


def logs_router(state: ServerState) -> APIRouter:
    """The route of the log."""
    router = APIRouter(prefix="/logs", dependencies=[Depends(require(Role.ADMIN))])

    @router.get("/")
    def logs(lines: Annotated[int, Query(ge=1, le=2000)] = 300) -> Response:
        path = state.settings.state / "logs" / "app.log"
        last: deque[str] = deque(maxlen=lines)
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as file:
                last.extend(file)
        return PlainTextResponse("\n".join(map(one_line, last)))

    return router
