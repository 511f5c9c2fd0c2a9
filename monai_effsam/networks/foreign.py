# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Doors to libraries that import torchvision: timm and segment-anything.

The torchvision wheels of the package index are built for CUDA. Next to a CPU build of torch their compiled part
does not load, nobody declares the operators `torchvision::nms` and `qnms`, and `import torchvision` fails where it
describes them. These doors declare both when, and only when, that happens. `torchvision.ops.nms` itself still
answers with torchvision's own explanation; no network of those libraries calls it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType
from typing import Any

from monai_effsam.errors import MissingExtraError

__all__ = ["import_segment_anything", "import_timm"]

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_timm() -> ModuleType:
    """The module `timm`, also where torchvision's compiled part does not fit this torch.

    Raises:
        MissingExtraError: timm or torchvision is not installed.
    """
    return _import("timm")


def import_segment_anything() -> ModuleType:
    """The module `segment_anything`, also where torchvision's compiled part does not fit this torch.

    Raises:
        MissingExtraError: segment-anything or torchvision is not installed.
    """
    return _import("segment_anything", package="segment-anything")


def _import(name: str, package: str | None = None) -> ModuleType:
    """A module behind torchvision; `package` is its name for pip where that differs."""
    for module, pip_name in (("torchvision", "torchvision"), (name, package or name)):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(pip_name)
    _mend_torchvision()
    if name not in sys.modules:
        # a failed import inside `import monai` leaves submodules that would not be bound to the new module
        for stale in [m for m in sys.modules if m.startswith(f"{name}.")]:
            del sys.modules[stale]
    return importlib.import_module(name)


@cache
def _mend_torchvision() -> Any:
    """Import torchvision; returns the declared operators, which last as long as this object, or None."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if not any(f"operator torchvision::{name} does not exist" in str(error) for name in _OPERATORS):
            raise
    else:
        return None
    import torch.library

    operators = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in _OPERATORS:
        operators.define(name + _SIGNATURE)  # type: ignore[no-untyped-call]
    importlib.import_module("torchvision")
    return operators
