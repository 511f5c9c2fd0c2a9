# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The FastAPI application: the guard in front, one router a subject behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, FastAPI

from monai_effsam.labelling.server.auth import Gate, Role, require
from monai_effsam.labelling.server.errors import install_handlers
from monai_effsam.labelling.server.guard import Guard
from monai_effsam.labelling.server.routes.activelearning import activelearning_router
from monai_effsam.labelling.server.routes.datastore import datastore_router
from monai_effsam.labelling.server.routes.infer import infer_router
from monai_effsam.labelling.server.routes.info import info_router
from monai_effsam.labelling.server.routes.login import login_router
from monai_effsam.labelling.server.routes.logs import logs_router
from monai_effsam.labelling.server.routes.model import model_router
from monai_effsam.labelling.server.routes.proxy import proxy_router
from monai_effsam.labelling.server.routes.scoring import scoring_router
from monai_effsam.labelling.server.routes.session import session_router
from monai_effsam.labelling.server.routes.train import train_router
from monai_effsam.labelling.server.settings import ServerSettings
from monai_effsam.labelling.server.state import ServerState
from monai_effsam.labelling.server.viewer import PAGES_AT

if TYPE_CHECKING:
    from monai_effsam.labelling.app import LabellingApp

__all__ = ["create_server"]

_ROUTERS = (
    info_router,
    infer_router,
    activelearning_router,
    datastore_router,
    train_router,
    scoring_router,
    session_router,
    model_router,
    logs_router,
)


def create_server(
    app: LabellingApp,
    settings: ServerSettings,
    *,
    gate: Gate | None = None,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """A server for one app; nothing runs before the application is served.

    Args:
        app: answers the requests.
        settings: folders, log-in, limits.
        gate: tells users; made from the settings by default.
        routers: more routes, for the role user: a viewer's pages. Included last.
    """
    gate = gate or Gate(settings)
    state = ServerState(app, settings, gate)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        state.start()
        yield
        state.stop()

    server = FastAPI(title=app.name, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    server.state.effsam = state
    for make in _ROUTERS:
        server.include_router(make(state))
    if not gate.open:
        server.include_router(login_router(gate, PAGES_AT + "/" if routers else "/info/"))
    if app.studies.startswith(("http://", "https://")):
        server.include_router(proxy_router(app.studies, settings))
    for router in routers:
        server.include_router(router, dependencies=[Depends(require(Role.USER))])
    install_handlers(server)
    server.add_middleware(Guard, settings=settings, gate=gate)
    return server
