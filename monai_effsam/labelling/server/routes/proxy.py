# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""/proxy/dicom/...: the PACS behind this server for a viewer in a browser, and nothing of it but DICOMweb.

Only paths of QIDO-RS, WADO-RS and STOW-RS with real UIDs pass; the query goes along, request headers do not, and what
comes back is streamed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from monai_effsam.labelling.server.auth import Role, require
from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.settings import ServerSettings

__all__ = ["check_dicom_path", "proxy_router"]

_UID = r"[0-9](?:[0-9.]{0,62}[0-9])?"
_BULK = r"(?:/bulk(?:data)?(?:/[0-9A-Za-z]{1,32}){1,8})?"
_FRAMES = r"frames/[0-9]{1,6}(?:,[0-9]{1,6}){0,63}(?:/(?:rendered|thumbnail))?"
_PATHS = (
    r"(?:studies|series|instances)",
    rf"studies/{_UID}(?:/(?:metadata|series|instances|rendered|thumbnail))?",
    rf"studies/{_UID}/series/{_UID}(?:/(?:metadata|instances|rendered|thumbnail))?",
    rf"studies/{_UID}/series/{_UID}/instances/{_UID}(?:/(?:metadata|rendered|thumbnail|frames))?",
    rf"studies/{_UID}/series/{_UID}/instances/{_UID}/{_FRAMES}",
    rf"studies/{_UID}/series/{_UID}/instances/{_UID}{_BULK}",
    rf"(?:studies/{_UID}/)?bulkdata(?:/[0-9A-Za-z.]{{1,64}}){{1,8}}",
)
_GET = re.compile("|".join(f"(?:{path})" for path in _PATHS))
_STOW = re.compile(rf"studies(?:/{_UID})?")
_MEDIA = re.compile(r"[A-Za-z0-9 _.,;:=*/+\"'-]{1,512}")
_BACK = ("content-type", "content-length", "content-encoding", "warning")


def check_dicom_path(method: str, path: str) -> str:
    """A path below the root of a DICOMweb service, if DICOMweb knows it.

    Raises:
        Refusal: 404 otherwise.
    """
    path = path.strip("/")
    if not (_STOW if method == "POST" else _GET).fullmatch(path) or ".." in path:
        raise Refusal(404, "proxy: that is no path of DICOMweb.")
    return path


def proxy_router(root: str, settings: ServerSettings) -> APIRouter:
    """The routes to one DICOMweb service.

    Args:
        root: its address.
        settings: time limit and log-in of the PACS.
    """
    router = APIRouter(prefix="/proxy/dicom", dependencies=[Depends(require(Role.USER))])
    timeout = httpx.Timeout(settings.proxy_timeout)
    client = httpx.AsyncClient(
        timeout=timeout, auth=settings.pacs_login, trust_env=False, follow_redirects=False,
        limits=httpx.Limits(max_connections=32),
    )  # fmt: skip

    async def forward(request: Request, path: str) -> Response:
        address = f"{root.rstrip('/')}/{check_dicom_path(request.method, path)}"
        query = request.url.query
        asked = client.build_request(
            request.method,
            httpx.URL(address, query=query.encode()) if query else address,
            headers=_forwarded(request),
            content=request.stream() if request.method == "POST" else None,
        )
        try:
            reply = await client.send(asked, stream=True)
        except httpx.TimeoutException as error:
            raise Refusal(504, "proxy: the PACS does not answer in time.") from error
        except httpx.HTTPError as error:
            raise Refusal(502, "proxy: the PACS cannot be reached.") from error
        if reply.is_redirect:
            await reply.aclose()
            raise Refusal(502, "proxy: the PACS points elsewhere, which is not followed.")
        return StreamingResponse(_streamed(reply), reply.status_code, _returned(reply.headers))

    async def get(request: Request, path: str) -> Response:
        return await forward(request, path)

    for service in ("/stow", "/wado", "/qido", ""):  # the last takes what the others do not
        router.add_api_route(f"{service}/{{path:path}}", get, methods=["GET"])

    @router.post("/stow/{path:path}", dependencies=[Depends(require(Role.ANNOTATOR))])
    async def store(request: Request, path: str) -> Response:
        return await forward(request, path)

    return router


def _forwarded(request: Request) -> dict[str, str]:
    """The two headers that DICOMweb needs, if they look like media types; no cookie, no token, no host."""
    packed = "gzip" in request.headers.get("accept-encoding", "")
    found = {
        "accept": request.headers.get("accept", "*/*"),
        "accept-encoding": "gzip" if packed else "identity",
    }
    if request.method == "POST":
        found["content-type"] = request.headers.get("content-type", "")
        if "content-length" in request.headers:  # the guard has checked it
            found["content-length"] = request.headers["content-length"]
    if not all(_MEDIA.fullmatch(value) for value in found.values()):
        raise Refusal(400, "proxy: expected plain media types in the headers Accept and Content-Type.")
    return found


def _returned(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in _BACK if name in headers}


async def _streamed(reply: Any) -> AsyncIterator[bytes]:
    try:
        async for part in reply.aiter_raw():
            yield part
    finally:
        await reply.aclose()
