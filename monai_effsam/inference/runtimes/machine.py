# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What this process may use of the machine, and what it has used."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

__all__ = ["peak_memory_mb", "processor_facts", "usable_cores"]


def usable_cores() -> int:
    """CPUs that this process may run on, at least one."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


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


def processor_facts() -> dict[str, str | int]:
    """Processor, usable cores and system, for who compares times; nothing that names a host or a user."""
    name = platform.processor()
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() in ("model name", "hardware"):
                name = value.strip()
                break
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": name or platform.machine(), "cores": usable_cores(), "system": system}
