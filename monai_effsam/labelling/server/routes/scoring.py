# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""/scoring: methods that rate labels or images, in a thread of their own."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from starlette.responses import Response

from monai_effsam.labelling.server.auth import Role, require
from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.jobs import BackgroundJob
from monai_effsam.labelling.server.parameters import config_parameters
from monai_effsam.labelling.server.replies import json_reply
from monai_effsam.labelling.server.routes.train import job_status
from monai_effsam.labelling.server.state import ServerState

__all__ = ["scoring_router"]


def scoring_router(state: ServerState) -> APIRouter:
    """The routes of scoring methods."""
    router = APIRouter(prefix="/scoring", dependencies=[Depends(require(Role.USER))])
    annotator = [Depends(require(Role.ANNOTATOR))]

    @router.get("/")
    def status(all: bool = False, check_if_running: bool = False) -> Response:  # noqa: A002  the clients' name
        return job_status(state.scoring, all, check_if_running)

    @router.post("/{method}", dependencies=annotator)
    def score(method: str, params: Annotated[dict[str, Any] | None, Body()] = None) -> Response:
        task = state.app.scoring_methods.get(method)
        if task is None:
            raise Refusal(404, "method: there is none of this name; GET /info/ lists them.")
        request = {"method": method, **config_parameters(params or {}, task.info().get("config", {}))}
        job = BackgroundJob(request, lambda: state.app.scoring(request), lambda: None)
        return json_reply(state.scoring.submit(job).to_json())

    @router.delete("/", dependencies=annotator)
    def stop() -> Response:
        state.scoring.stop()
        return json_reply({})

    return router
