# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Errors as the clients see them: a status and one line as JSON, never a trace and never a path of this machine."""

from __future__ import annotations

import logging
import re
import uuid
from typing import Any

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from monai_effsam.errors import EffsamError, MissingExtraError, UsageError

__all__ = ["Refusal", "answer_error", "install_handlers", "one_line"]

logger = logging.getLogger(__name__)

_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s:'\",;()]+)+[\\/]([^\\/\s:'\",;()]*)")
_TOP = re.compile(r"(?<![\w.:/\\-])/([^\\/\s:'\",;()]+)")
_ADDRESS = re.compile(r"\bhttps?://[^\s'\"]+")


class Refusal(HTTPException):
    """A request that is not served; `detail` is one line for the user."""


def one_line(text: str) -> str:
    """The first line of a message, with file names instead of paths and no addresses."""
    line = next(iter(text.strip().splitlines()), "")[:500]
    return _TOP.sub(r"\1", _PATH.sub(r"\1", _ADDRESS.sub("(address)", line)))


def answer_error(error: BaseException) -> JSONResponse:
    """The reply to an error, whatever it is; an unforeseen one is told to the log, and the client gets its number."""
    if isinstance(error, StarletteHTTPException):
        return _reply(error.status_code, str(error.detail), dict(error.headers or {}))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "request"
        return _reply(422, f"{where}: {first['msg']}.")
    status = _status_of(error)
    if status < 500:
        return _reply(status, str(error))
    number = uuid.uuid4().hex[:8]
    logger.error("error %s", number, exc_info=error)
    if isinstance(error, MissingExtraError):
        return _reply(500, str(error))
    return _reply(500, f"The server failed ({type(error).__name__}); its log tells more under {number}.")


def _status_of(error: BaseException) -> int:
    if isinstance(error, UsageError):
        return 400
    if isinstance(error, EffsamError) and not isinstance(error, MissingExtraError):
        return 422
    name = type(error).__name__  # those of MONAI Label, by name: it need not be imported here
    if name in {"ImageNotFoundException", "LabelNotFoundException"}:
        return 404
    if (
        name == "MONAILabelException"
        and getattr(getattr(error, "error", None), "name", "") == "INVALID_INPUT"
    ):
        return 400
    return 500


def _reply(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": one_line(detail)}, status, headers)


def install_handlers(server: Any) -> None:
    """Let a FastAPI application answer with these."""

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return answer_error(error)

    for kind in (StarletteHTTPException, RequestValidationError, EffsamError):
        server.add_exception_handler(kind, answer)
