# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""/auth and /login: tokens for Slicer, a cookie for browsers. Without a log-in neither exists, as Slicer expects."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from monai_effsam.labelling.server.auth import COOKIE, Gate
from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.replies import json_reply

__all__ = ["login_router"]

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>effsam label: log in</title>
<style>body{font:16px system-ui;margin:15vh auto;max-width:20em}
input,button{font:inherit;width:100%;margin:.3em 0}</style>
<h1>Log in</h1><form method="post" action="auth/session">
<label>User <input name="username" autocomplete="username"></label>
<label>Password or token <input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button></form></html>"""


def login_router(gate: Gate, home: str = "/info/") -> APIRouter:
    """The routes of log-ins.

    Args:
        gate: tells users.
        home: path that a browser is sent to afterwards.
    """
    router = APIRouter()

    @router.get("/auth/")
    def enabled() -> Response:
        provider = gate.provider.settings if gate.provider else None
        told = {"client_id": provider.client, "realm": provider.issuer} if provider else {}
        return json_reply({"enabled": True, **told})

    @router.post("/auth/token")
    def token(password: Annotated[str, Form()], username: Annotated[str, Form()] = "") -> Response:
        return json_reply(gate.log_in(username, password))

    @router.post("/auth/session")
    def session(
        request: Request, password: Annotated[str, Form()], username: Annotated[str, Form()] = ""
    ) -> Response:
        found = gate.log_in(username, password)
        reply = RedirectResponse(f"..{home}", status_code=303)  # relative: a proxy may add a prefix
        safe = request.url.scheme == "https"
        reply.set_cookie(COOKIE, found["access_token"], httponly=True, samesite="strict", secure=safe)
        return reply

    @router.get("/auth/token/valid")
    def valid(request: Request) -> Response:
        user = request.state.user
        if user.role is None:
            raise Refusal(403, "role: you have none here.")
        return json_reply({"username": user.name, "roles": [user.role.name.lower()]})

    @router.get("/login")
    def page() -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": policy})

    return router
