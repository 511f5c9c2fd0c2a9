# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Serve the models to 3D Slicer and OHIF: first masks without a click, and a model that learns from corrections.

Images are those of a folder, or of a PACS that speaks DICOMweb. The server answers this machine only, unless --host
says otherwise; then it wants a log-in. Models, caches and logs are kept in --state.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from monai_effsam.cli.common import add_options
from monai_effsam.cli.serving import bind, log_to, share_cores, write_only_to
from monai_effsam.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from fastapi import APIRouter

    from monai_effsam.labelling.server import ServerSettings

__all__ = ["add_arguments", "check_packages", "run", "state_folder"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam label`."""
    parser.add_argument(
        "--studies", metavar="DIR_OR_URL", help="folder of images, or a DICOMweb address; needed to serve"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="to answer at (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=_port, default=8000, metavar="N", help="to answer at (default: 8000)")
    add_options(parser, "model")
    parser.add_argument(
        "--modality", metavar="NAME", help="of images that do not tell it, see `effsam targets`"
    )
    parser.add_argument(
        "--conf",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the app; may be repeated",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="folder to write to (default: .effsam inside the studies; of a PACS, one in your home)",
    )
    viewer = parser.add_argument_group("OHIF", "the viewer in the browser, for images of a PACS")
    viewer.add_argument("--ohif", type=Path, metavar="DIR", help="folder of the prebuilt viewer, to serve it")
    viewer.add_argument(
        "--fetch-ohif", type=Path, metavar="DIR", help="fetch it there with npm, check its hash, and end"
    )
    login = parser.add_argument_group("log-in")
    login.add_argument(
        "--token-file", type=Path, metavar="FILE", help="a secret of 16 or more characters to log in with"
    )
    login.add_argument("--oidc", metavar="URL", help="OpenID Connect provider of users and roles")
    login.add_argument(
        "--audience", default="monailabel-app", metavar="NAME", help="that its tokens must be for"
    )
    login.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="web page elsewhere that may call this server",
    )
    login.add_argument("--insecure", action="store_true", help="let other machines in without a log-in")
    login.add_argument("--ssl-cert", type=Path, metavar="FILE", help="certificate, for https")
    login.add_argument("--ssl-key", type=Path, metavar="FILE", help="its key")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C; exit status 0 then. With --fetch-ohif, fetch the viewer and end."""
    if args.fetch_ohif is not None:
        return _fetch(args)
    share_cores()
    studies = _studies(args.studies)
    conf = _conf(args)
    check_packages()
    sock = bind(args.host, args.port)
    try:
        return _serve(args, studies, conf, sock)
    except KeyboardInterrupt:  # the way to end it
        return 0
    finally:
        sock.close()


def _serve(args: argparse.Namespace, studies: str, conf: dict[str, str], sock: socket.socket) -> int:
    state = args.state or state_folder(studies)
    write_only_to(state)
    import uvicorn

    from monai_effsam.labelling.server.settings import ServerSettings

    settings = _settings(args, state, ServerSettings)
    log_to(settings.folder("logs") / "app.log")
    routers = _viewer(args, studies)
    if not args.quiet:
        print(f"loading ... (studies: {args.studies}, state: {state})", flush=True)
    from monai_effsam.labelling import LabellingApp
    from monai_effsam.labelling.server import create_server

    app = LabellingApp(str(state), studies, conf)
    server = create_server(app, settings, routers=routers)
    config = uvicorn.Config(
        server,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        limit_concurrency=256,
        ssl_certfile=args.ssl_cert,
        ssl_keyfile=args.ssl_key,
    )
    if not args.quiet:
        _tell(args, sock, settings.has_login)
    uvicorn.Server(config).run(sockets=[sock])
    return 0


def _viewer(args: argparse.Namespace, studies: str) -> list[APIRouter]:
    """The routes of OHIF, where it is asked for.

    Raises:
        UsageError: it cannot show these studies, or its files are missing.
    """
    if args.ohif is None:
        return []
    if not _is_address(studies):
        raise UsageError(
            f"--ohif: the viewer shows images of a PACS, and --studies is {args.studies}. Name a DICOMweb address."
        )
    from monai_effsam.labelling.server.viewer import viewer_router

    return [viewer_router(args.ohif)]


def _fetch(args: argparse.Namespace) -> int:
    from monai_effsam.labelling.server.ohif_fetch import fetch_ohif

    folder = fetch_ohif(args.fetch_ohif)
    if not args.quiet:
        print(f"OHIF is in {folder}. Serve it: effsam label --studies URL --ohif {folder}")
    return 0


def check_packages() -> None:
    """Refuse early, in one line, what would fail late in many.

    Raises:
        MissingExtraError: MONAI Label is not installed.
        UsageError: it is, with a pydicom that it cannot use.
    """
    import importlib.metadata
    import importlib.util

    for name in ("monailabel", "fastapi", "uvicorn", "httpx", "jwt", "multipart"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError("monailabel" if name == "monailabel" else name, "label")
    version = importlib.metadata.version("pydicom")
    if int(version.partition(".")[0]) >= 3 and importlib.util.find_spec("pydicom_seg") is not None:
        raise UsageError(
            f"pydicom is {version}, expected one below 3 beside this MONAI Label. Install it: pip install 'pydicom<3'"
        )


def state_folder(studies: str) -> Path:
    """Where a server of these studies writes: beside the images, so that models and labels travel with them.

    Args:
        studies: a folder, or the address of a PACS; for that a folder in the user's home.
    """
    if not _is_address(studies):
        return Path(studies) / ".effsam"
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", urlsplit(studies).netloc.rpartition("@")[2])
    return base / "effsam" / "label" / f"{name}-{hashlib.sha256(studies.encode()).hexdigest()[:8]}"


def _settings(args: argparse.Namespace, state: Path, make: type[ServerSettings]) -> ServerSettings:
    from monai_effsam.labelling.server.settings import OidcSettings

    try:
        state.mkdir(parents=True, exist_ok=True)
        token = args.token_file.read_text(encoding="utf-8").strip() if args.token_file else None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{args.token_file or state}: cannot be used ({error}). Choose another.") from error
    if not os.access(state, os.W_OK):
        raise UsageError(f"--state: {state} cannot be written to. Choose another folder.")
    oidc = OidcSettings(args.oidc, args.audience, args.audience) if args.oidc else None
    user, password = (os.environ.get(f"MONAI_LABEL_DICOMWEB_{part}") for part in ("USERNAME", "PASSWORD"))
    return make(
        state=state,
        host=args.host,
        token=token,
        oidc=oidc,
        origins=tuple(args.origin),
        insecure=args.insecure,
        pacs_login=(user, password) if user and password else None,
    )


def _studies(text: str | None) -> str:
    """The folder's real path, or the address as it is."""
    if not text:
        raise UsageError("--studies: is missing, expected a folder with images, or a DICOMweb address.")
    if _is_address(text):
        if not urlsplit(text).hostname:
            raise UsageError(f"--studies: '{text}' names no host, expected http://host:port/dicom-web.")
        return text.rstrip("/")
    if not Path(text).is_dir():
        raise UsageError(f"--studies: {text} is no folder, expected one with images, or a DICOMweb address.")
    return str(Path(text).resolve())


def _conf(args: argparse.Namespace) -> dict[str, str]:
    """The app's settings as text."""
    conf: dict[str, str] = {}
    for pair in args.conf:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--conf: '{pair}' is no setting, expected KEY=VALUE.")
        conf[key] = value
    if args.modality:
        conf["modality"] = args.modality
    if args.model:
        from monai_effsam.inference.model_path import find_model_path

        conf["model"] = str(find_model_path(args.model))
    return conf


def _tell(args: argparse.Namespace, sock: socket.socket, login: bool) -> None:
    scheme = "https" if args.ssl_cert else "http"
    port = sock.getsockname()[1]
    host = f"[{args.host}]" if ":" in args.host else args.host
    url = f"{scheme}://{host}:{port}"
    print(f"server for 3D Slicer (MONAI Label): {url}")
    if args.ohif is not None:
        print(f"labelling in the browser (OHIF):     {url}/ohif/")
    if login:
        print(f"log in from a browser:              {url}/login")
    print("Ctrl-C ends it.", flush=True)


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"port is '{text}', expected a number from 0 to 65535")
    return int(text)
