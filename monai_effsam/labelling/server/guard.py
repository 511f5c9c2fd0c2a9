# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What stands before every route: host, origin, user and size are checked before a body is read."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response

from monai_effsam.labelling.server.auth import Gate
from monai_effsam.labelling.server.errors import Refusal, answer_error
from monai_effsam.labelling.server.settings import ServerSettings, is_loopback
from monai_effsam.labelling.server.viewer import PAGES_AT

__all__ = ["Guard"]

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_PUBLIC = ("/auth/", "/auth/token", "/auth/session", "/login")
"""Paths that answer somebody who has not logged in; they check for themselves."""

_UPLOADS = ("/infer/", "/datastore/", "/session/", "/proxy/dicom/stow/")
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"x-frame-options": b"SAMEORIGIN",
    b"cache-control": b"no-store",
}


class Guard:
    """An ASGI layer around the application.

    A page of another site cannot make a browser act here: its origin is refused, named origins aside, and on loopback
    so is any host name but that of this machine (DNS rebinding).

    Args:
        app: what is guarded.
        settings: of the server.
        gate: tells users.
    """

    def __init__(self, app: Any, settings: ServerSettings, gate: Gate) -> None:
        self._app, self._settings, self._gate = app, settings, gate
        self._local = is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no web sockets here
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        allowed = origin if origin in self._settings.origins else ""
        begun = False

        async def send_on(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = _with_headers(message.get("headers", []), allowed)
            await send(message)

        try:
            self._check_host(headers)
            self._check_origin(headers, origin)
            if allowed and scope["method"] == "OPTIONS":
                await _preflight()(scope, receive, send_on)
                return
            if scope["path"] not in _PUBLIC:
                cookies = cookie_parser(headers.get("cookie", ""))
                user = await anyio.to_thread.run_sync(self._gate.identify, headers, cookies)
                scope.setdefault("state", {})["user"] = user
            limit = self._limit(scope)
            _check_length(headers, limit)
            await self._app(scope, _counted(receive, limit), send_on)
        except Exception as error:
            if begun:
                raise
            answer: Response = answer_error(error)
            if answer.status_code == 401 and scope["method"] == "GET" and _is_page(scope["path"]):
                answer = RedirectResponse("/login", status_code=303)
            await answer(scope, receive, send_on)

    def _check_host(self, headers: Headers) -> None:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        named = {urlsplit(origin).hostname for origin in self._settings.origins}
        if self._local and not is_loopback(host) and host not in named:
            raise Refusal(
                400, "host: the server serves this machine only. Open it as 127.0.0.1 or localhost."
            )

    def _check_origin(self, headers: Headers, origin: str) -> None:
        own = urlsplit(origin).netloc == headers.get("host") if origin else True
        site = headers.get("sec-fetch-site", "same-origin")
        if (not own and origin not in self._settings.origins) or (not origin and site == "cross-site"):
            raise Refusal(
                403, "origin: pages of other sites may not call this server. Name theirs with --origin."
            )

    def _limit(self, scope: Scope) -> int:
        """The largest body that a path takes [bytes]."""
        limits, path = self._settings.limits, scope["path"]
        if scope["method"] in {"PUT", "POST"}:
            if path.startswith("/model/"):
                return limits.model
            if path.startswith(_UPLOADS):
                return limits.upload
        return limits.body


def _is_page(path: str) -> bool:
    """Whether a browser shows what a path answers: somebody there can log in."""
    return path in ("/", PAGES_AT) or path.startswith(f"{PAGES_AT}/")


def _check_length(headers: Headers, limit: int) -> None:
    text = headers.get("content-length", "0")
    if not text.isascii() or not text.isdecimal():
        raise Refusal(400, "content-length: expected a number.")
    if int(text) > limit:
        raise _too_large(limit)


def _counted(receive: Receive, limit: int) -> Receive:
    """Counts what comes, for bodies that do not tell their length, or lie."""
    taken = 0

    async def counting() -> MutableMapping[str, Any]:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise _too_large(limit)
        return message

    return counting


def _too_large(limit: int) -> Refusal:
    return Refusal(
        413, f"body: is too large, expected at most {limit >> 20} MiB here.", {"Connection": "close"}
    )


def _with_headers(given: Any, origin: str) -> list[tuple[bytes, bytes]]:
    headers = list(given)
    names = {name.lower() for name, _ in headers}
    headers += [(name, value) for name, value in _HEADERS.items() if name not in names]
    if origin:
        headers += [(b"access-control-allow-origin", origin.encode()), (b"vary", b"Origin")]
    return headers


def _preflight() -> Response:
    allow = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, Accept",
        "Access-Control-Max-Age": "600",
    }
    return Response(status_code=204, headers=allow)
