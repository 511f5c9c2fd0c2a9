# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a command that serves does before anything heavy is loaded: takes its port, opens its log."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from monai_effsam.errors import DataError, UsageError

__all__ = ["bind", "log_to", "share_cores", "write_only_to"]


def bind(host: str, port: int) -> socket.socket:
    """A socket at the address, before anything heavy is loaded.

    Raises:
        UsageError: it is taken, or not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
            sock.listen(128)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        remedy = "Choose another with --port." if error.errno == 98 else "Choose another with --host."
        raise UsageError(f"{host}:{port} cannot be used ({error.strerror}). {remedy}") from error
    return sock


def log_to(path: Path) -> None:
    """Send what is logged to a file too, ten of ten megabytes at most.

    Raises:
        DataError: it cannot be written.
    """
    from logging.handlers import RotatingFileHandler

    try:
        handler = RotatingFileHandler(path, maxBytes=10 << 20, backupCount=9, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}). Choose another --state.") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for shown in root.handlers:  # the terminal keeps to -v and -q
        shown.setLevel(max(shown.level, root.level))
    root.setLevel(min(root.level, logging.INFO))
    root.addHandler(handler)


def write_only_to(state: Path) -> None:
    """Keep what MONAI Label would put into the user's home; read when it is imported."""
    os.environ.setdefault("MONAI_LABEL_SESSION_PATH", str(state / "stock_sessions"))


def share_cores() -> None:
    """Let one inference take half of the cores, and let its threads sleep while they wait.

    As torch comes, the threads of each inference take all cores and spin between two steps: where two users ask at
    once, or a training runs beside, a click then took a second instead of a tenth (2 cores). Read when torch is loaded;
    what the environment says already stays.
    """
    from monai_effsam.inference.runtimes.machine import usable_cores  # brings numpy, not torch

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // 2)))
