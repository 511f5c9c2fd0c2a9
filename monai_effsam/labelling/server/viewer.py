# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Routes that serve OHIF: the prebuilt viewer, its configuration, and our extension and mode, from one origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, RedirectResponse, Response

import monai_effsam
from monai_effsam.errors import UsageError

__all__ = ["MODULES_AT", "PAGES_AT", "find_dist", "modules_folder", "viewer_config", "viewer_router"]

PAGES_AT = "/ohif"
"""Pages of the viewer: the study list, and `/ohif/effsam?StudyInstanceUIDs=...` for a study."""

MODULES_AT = "/effsam-ohif"
"""Our ES modules. OHIF loads an extension by the string that is its id, so `extension.js` names this path."""

_SCRIPT = "text/javascript"
_OWN = frozenset({"index.html", "app-config.js", "init-service-worker.js", "sw.js"})
_NOT_KEPT = {"Cache-Control": "no-store"}
_GUARD = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
"""OHIF needs inline scripts and `new Function`; whatever it runs, it can speak to this origin only."""


def find_dist(folder: Path) -> Path:
    """The folder of a prebuilt OHIF that holds its start page: the one named, or `dist`, `package/dist` in it.

    Raises:
        UsageError: there is none.
    """
    for inner in (".", "dist", "package/dist"):
        found = (folder / inner).resolve()
        if (found / "index.html").is_file() and any(found.glob("app.bundle*.js")):
            return found
    raise UsageError(
        f"--ohif: {folder} has no index.html with app.bundle.*.js, expected a prebuilt OHIF. "
        f"Get one with `effsam label --fetch-ohif {folder}`."
    )


def modules_folder() -> Path:
    """Our extension and mode, inside the installed package or beside it in a checkout.

    Raises:
        UsageError: they are missing.
    """
    package = Path(monai_effsam.__file__).parent
    for place in (package, package.parent):
        folder = place / "apps" / "effsam" / "ohif"
        if (folder / "extension.js").is_file():
            return folder
    raise UsageError(
        f"{package.parent / 'apps/effsam/ohif'}: the modules for OHIF are missing, expected extension.js. "
        "Install the package again."
    )


def viewer_config(*, qido_root: str, wado_root: str) -> dict[str, Any]:
    """`window.config` of the viewer: our extension and mode, and the archive through this server.

    Args:
        qido_root: path of DICOMweb searches at this server.
        wado_root: path of DICOMweb retrievals at this server.
    """
    source = {
        "friendlyName": "Archive of the labelling server",
        "name": "PACS",
        "qidoRoot": qido_root,
        "wadoRoot": wado_root,
        "wadoUriRoot": wado_root,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "qidoSupportsIncludeField": False,
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "omitQuotationForMultipartRequest": True,
    }
    return {
        "name": "effsam",
        "routerBasename": PAGES_AT,
        "extensions": [f"{MODULES_AT}/extension.js"],
        "modes": [f"{MODULES_AT}/mode.js"],
        "customizationService": {},
        "showStudyList": True,
        "maxNumberOfWebWorkers": 2,
        "investigationalUseDialog": {"option": "never"},  # our panel says it
        "groupEnabledModesFirst": True,
        "defaultDataSourceName": "dicomweb",
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "dicomweb",
                "configuration": source,
            }
        ],
    }


def viewer_router(
    ohif_dist: Path,
    *,
    qido_root: str = "/proxy/dicom/qido",
    wado_root: str = "/proxy/dicom/wado",
    modules: Path | None = None,
) -> APIRouter:
    """Routes of the viewer. Include them last: one answers every path that names a file of the viewer.

    The viewer is built to find its files at the root of the server, and stays as it is; which files there are is
    listed once, so that a path is looked up and never joined to a folder. Nothing is fetched from elsewhere: the
    viewer's service worker, which would, is answered empty.

    Args:
        ohif_dist: folder of the prebuilt viewer, as `find_dist` takes it.
        qido_root: path of DICOMweb searches at this server.
        wado_root: path of DICOMweb retrievals at this server.
        modules: folder of our ES modules, where not the one that ships.

    Raises:
        UsageError: the viewer or the modules are missing.
    """
    dist = find_dist(ohif_dist)
    files = {p.relative_to(dist).as_posix(): p for p in sorted(dist.rglob("*")) if p.is_file()}
    own = {p.name: p for p in sorted((modules or modules_folder()).glob("*.js"))}
    config = f"window.config = {json.dumps(viewer_config(qido_root=qido_root, wado_root=wado_root))};\n"
    router = APIRouter(include_in_schema=False)

    @router.get("/app-config.js")
    def configuration() -> Response:
        return Response(config, media_type=_SCRIPT, headers=_NOT_KEPT)

    @router.get("/init-service-worker.js")
    @router.get("/sw.js")
    def no_service_worker() -> Response:
        return Response("", media_type=_SCRIPT)

    @router.get(PAGES_AT)
    def start() -> Response:
        return RedirectResponse(f"{PAGES_AT}/")

    @router.get(PAGES_AT + "/{path:path}")
    def page(path: str) -> Response:
        return FileResponse(files["index.html"], headers=_GUARD | _NOT_KEPT)

    @router.get(MODULES_AT + "/{name}")
    def module(name: str) -> Response:
        return _file(own.get(name), media_type=_SCRIPT)

    @router.get("/{path:path}")
    def asset(path: str) -> Response:
        return _file(files.get(path) if path not in _OWN else None)

    return router


def _file(path: Path | None, media_type: str | None = None) -> Response:
    """A file, not to be kept: Chromium stalls now and then where it starts the viewer out of its cache."""
    if path is None:
        raise HTTPException(404, "There is no such page.")
    return FileResponse(
        path, media_type=media_type, headers=_NOT_KEPT | {"X-Content-Type-Options": "nosniff"}
    )
