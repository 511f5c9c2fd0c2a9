# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""/train: start, watch and stop a training. It runs in a thread; nothing is written on a command line."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from starlette.responses import Response

from monai_effsam.labelling.server.auth import Role, require
from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.jobs import BackgroundJob, Jobs
from monai_effsam.labelling.server.parameters import config_parameters
from monai_effsam.labelling.server.replies import json_reply, without_paths
from monai_effsam.labelling.server.state import ServerState

__all__ = ["job_status", "train_router"]


def train_router(state: ServerState) -> APIRouter:
    """The routes of trainings."""
    router = APIRouter(prefix="/train", dependencies=[Depends(require(Role.USER))])
    admin = [Depends(require(Role.ADMIN))]
    state.app.train_later = lambda name: _submit(state, name, {}, False)  # when enough labels came

    @router.get("/")
    def status(all: bool = False, check_if_running: bool = False) -> Response:  # noqa: A002  the clients' name
        return job_status(state.training, all, check_if_running)

    @router.post("/", dependencies=admin)
    def train_all(params: Annotated[dict[str, Any] | None, Body()] = None) -> Response:
        given = {name: (params or {}).get(name) for name in state.app.trainers}
        jobs = {
            name: _submit(state, name, one if isinstance(one, dict) else {}, True)
            for name, one in given.items()
        }
        return json_reply({name: {"result": job.to_json(), "detail": None} for name, job in jobs.items()})

    @router.post("/{model}", dependencies=admin)
    def train(
        model: str, enqueue: bool = False, params: Annotated[dict[str, Any] | None, Body()] = None
    ) -> Response:
        return json_reply(_submit(state, model, params or {}, enqueue).to_json())

    @router.delete("/", dependencies=admin)
    def stop() -> Response:
        job = state.training.running()
        state.training.stop()
        return json_reply(job.to_json() if job else {})

    return router


def job_status(jobs: Jobs, everything: bool, running: bool) -> Response:
    """The last job, the one that runs, or all."""
    if everything and not running:
        return json_reply([job.to_json() for job in jobs.all()])
    job = jobs.running() if running else jobs.last()
    if job is None:
        raise Refusal(404, "job: none is running." if running else "job: there was none yet.")
    return json_reply(job.to_json())


def _submit(state: ServerState, name: str, params: dict[str, Any], enqueue: bool) -> BackgroundJob:
    trainer = state.app.trainers.get(name)
    if trainer is None:
        raise Refusal(404, "trainer: there is none of this name; GET /info/ lists them.")
    request = {"model": name, **config_parameters(params, trainer.config())}
    return state.training.submit(
        BackgroundJob(without_paths(request), lambda: state.app.train(request), lambda: _cancel(trainer)),
        enqueue=enqueue,
    )


def _cancel(trainer: Any) -> None:
    cancel = getattr(trainer, "cancel", None)
    if cancel is not None:
        cancel()
