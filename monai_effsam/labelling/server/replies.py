# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Replies in the forms that the viewers parse."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from starlette.responses import FileResponse, Response

__all__ = ["file_reply", "json_reply", "mask_reply", "without_paths"]


def json_reply(value: Any, status: int = 200) -> Response:
    """A value as JSON; numbers of numpy become plain, those that are not finite null, paths their file names."""
    return Response(_json(value), status, media_type="application/json")


def mask_reply(mask: tuple[str, bytes] | None, params: Mapping[str, Any], output: str | None) -> Response:
    """The reply to an inference.

    Args:
        mask: (file name, content), None where the task answers in words alone.
        params: what the task tells besides.
        output: "image": the bare file, as OHIF reads it; "json": `params` alone; else both as multipart/form-data,
            `params` without a file name and `image` with one, as Slicer's `cgi.FieldStorage` wants them.
    """
    if output == "json" or (mask is None and output != "image"):
        return json_reply(params)
    name, content = mask or ("", b"")
    kind = "application/gzip" if name.endswith(".gz") else "application/octet-stream"
    if output == "image":
        return Response(content, media_type=kind, headers=_named(name))
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\n'
        "Content-Type: application/json\r\n\r\n"
    ).encode()
    middle = (
        f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    ).encode()
    body = b"".join((head, _json(params), middle, content, f"\r\n--{boundary}--\r\n".encode()))
    return Response(body, media_type=f"multipart/form-data; boundary={boundary}")


def file_reply(path: Path, name: str | None = None) -> FileResponse:
    """A file of the server under its own or another name; never shown in a browser as a page."""
    return FileResponse(path, media_type="application/octet-stream", filename=name or path.name)


def without_paths(value: Any) -> Any:
    """A copy of JSON-like data without the keys that hold paths, and with file names where a text is a path."""
    if isinstance(value, Mapping):
        return {
            key: without_paths(one)
            for key, one in value.items()
            if key not in {"path", "file", "bundle_path"}
        }
    if isinstance(value, list | tuple):
        return [without_paths(one) for one in value]
    if isinstance(value, str) and len(value) > 1 and PurePath(value).is_absolute():
        return PurePath(value).name
    return value


def _json(value: Any) -> bytes:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """JSON's own kinds only."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.name if isinstance(value, PurePath) else str(value)


def _named(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'} if name else {}
