# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a number depends on besides model and data: versions, threads, processor; and the memory it took."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from monai_effsam import __version__
from monai_effsam.inference.runtimes.machine import peak_memory_mb, usable_cores

__all__ = ["machine_facts", "peak_memory_mb"]

_PACKAGES = (
    "torch",
    "onnxruntime",
    "openvino",
    "monai",
    "timm",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "nibabel",
    "scipy",
)


def machine_facts(threads: int) -> dict[str, Any]:
    """Versions, threads and processor; nothing that names a user, a host or a path.

    Args:
        threads: of the network.
    """
    versions = {"monai_effsam": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "threads": threads,
        "cores": usable_cores(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
