# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""ONNX Runtime, OpenVINO and NNCF imported so that none of them writes a device id nor reports usage.

The onnxruntime wheel writes a device id and an event data base below the home folder when it is imported, unless
`ORT_DISABLE_TELEMETRY=1` stands in the environment by then; switching its events off afterwards is too late. OpenVINO
and NNCF write a client id and a counter to `~/intel` through the package openvino_telemetry; where that cannot be
imported, they work without. Seen with onnxruntime 1.31.1, openvino 2026.4.1 and nncf 3.4.0; a test looks for such files
after every command.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

from monai_effsam.errors import MissingExtraError

__all__ = ["import_nncf", "import_onnxruntime", "import_openvino"]


def import_onnxruntime() -> Any:
    """The module `onnxruntime`, its telemetry off.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnxruntime", "export") from error


def import_nncf() -> Any:
    """The module `nncf`, its telemetry off and its log silent but for errors.

    Raises:
        MissingExtraError: it is not installed.
    """
    import_openvino()
    try:
        nncf = importlib.import_module("nncf")
    except ModuleNotFoundError as error:
        raise MissingExtraError("nncf", "nas") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def import_openvino() -> Any:
    """The module `openvino`, its telemetry off.

    Raises:
        MissingExtraError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # Python's own way of "not there"
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "export") from error
