# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The store of a PACS, from its address: log-in from the environment, and an end to every wait."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from monai_effsam.labelling.store.dicomweb import DicomWebStore

__all__ = ["connect", "dicomweb_client"]

_SECONDS = (10.0, 120.0)
"""To connect, and between two pieces of an answer [s]."""


def connect(address: str, folder: Path, *, fetch_all: bool = False) -> DicomWebStore:
    """The series of a PACS; nothing is asked of it yet.

    Args:
        address: of its DICOMweb service.
        folder: that caches of several archives may share.
        fetch_all: as `DicomWebStore` takes it.
    """
    cache = folder / hashlib.sha256(address.encode()).hexdigest()[:12]
    return DicomWebStore(dicomweb_client(address), cache, fetch_all=fetch_all)


def dicomweb_client(address: str) -> Any:
    """A client that logs in with MONAI_LABEL_DICOMWEB_USERNAME and _PASSWORD, where they are set."""
    import requests
    from dicomweb_client.api import DICOMwebClient
    from requests.adapters import HTTPAdapter

    class Patient(HTTPAdapter):
        """Waits, but not for ever: the client itself names no time."""

        def send(self, request: Any, *args: Any, **kw: Any) -> Any:
            kw["timeout"] = kw.get("timeout") or _SECONDS
            return super().send(request, *args, **kw)

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, Patient(pool_maxsize=16))
    user, password = (os.environ.get(f"MONAI_LABEL_DICOMWEB_{part}") for part in ("USERNAME", "PASSWORD"))
    if user and password:
        session.auth = (user, password)
    return DICOMwebClient(address, session=session)
