# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""POST /activelearning/{strategy}: the image to label next."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from starlette.requests import Request
from starlette.responses import Response

from monai_effsam.labelling.server.auth import Role, require
from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.parameters import config_parameters
from monai_effsam.labelling.server.replies import json_reply, without_paths
from monai_effsam.labelling.server.state import ServerState

__all__ = ["activelearning_router"]


def activelearning_router(state: ServerState) -> APIRouter:
    """The route of strategies."""
    router = APIRouter(prefix="/activelearning", dependencies=[Depends(require(Role.USER))])

    @router.post("/{strategy}")
    def next_sample(
        request: Request, strategy: str, params: Annotated[dict[str, Any] | None, Body()] = None
    ) -> Response:
        task = state.app.strategies.get(strategy)
        if task is None:
            raise Refusal(404, "strategy: there is none of this name; GET /info/ lists them.")
        given = params or {}
        client = str(given.get("client_id") or request.state.user.name)[:64]
        config = task.info().get("config", {})
        asked = {"strategy": strategy, "client_id": client, **config_parameters(given, config)}
        with state.store_lock:  # so that two users are not given the same image
            sample = state.app.next_sample(asked)
            if not sample:
                return json_reply({})
            name = sample["id"]
            info = state.store.image_facts(name)  # a series need not be here yet
            served = {**info.get("strategy", {}), strategy: {"ts": int(time.time()), "client_id": client}}
            state.store.update_image_info(name, {"strategy": served})
        info.pop("strategy", None)
        return json_reply(without_paths({**sample, **info, "id": name, "name": info.get("name", name)}))

    return router
