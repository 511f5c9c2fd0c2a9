# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a number depends on besides model and data: versions, threads, processor; and the memory it took."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from monai_effsam import __version__

__all__ = ["machine_facts", "peak_memory_mb"]

_PACKAGES = ("torch", "monai", "timm", "numpy", "opencv-python-headless", "pillow", "nibabel", "scipy")


def machine_facts() -> dict[str, Any]:
    """Versions, threads and processor; nothing that names a user, a host or a path."""
    versions = {"monai_effsam": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "versions": versions,
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def peak_memory_mb() -> float | None:
    """The most memory this process held so far [MB, 10^6 bytes]; None where the system does not tell.

    Linux keeps the maximum of `getrusage` over `exec`, so a process started by a large one inherits its size;
    the high-water mark of the address space begins anew.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
