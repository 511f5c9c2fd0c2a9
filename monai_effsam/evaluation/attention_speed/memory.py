# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Extra memory of one call in a process of its own: the most that it held, less what it held before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_effsam.evaluation.attention_speed.operators import Shape

__all__ = ["extra_peak_mib", "own_process_peak_mib"]

_PEAK_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_OWN = """
import sys
import torch
from monai_effsam.evaluation.attention_speed.memory import extra_peak_mib
from monai_effsam.evaluation.attention_speed.operators import Shape, operator_call
torch.set_num_threads(1)
operator, size, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
operator_call(operator, size, Shape(side=16), mode)()  # what is loaded at the first call does not count
print(extra_peak_mib(operator_call(operator, size, Shape(*map(int, sys.argv[4:])), mode)))
"""


def extra_peak_mib(call: Callable[[], Any]) -> float | None:
    """Resident memory at the peak of a call, less that before it [MiB]; None where the system does not tell."""
    if not _PEAK_RESET.exists():
        return None
    before = _resident("VmRSS")
    _PEAK_RESET.write_text("5", encoding="ascii")  # the peak begins anew
    result = call()
    peak = _resident("VmHWM")
    del result
    return (peak - before) / 1024


def own_process_peak_mib(operator: str, size: int, mode: str, shape: Shape) -> float | None:
    """`extra_peak_mib` of one run of an operator in a new process, with one thread."""
    words = [operator, str(size), mode, *(str(side) for side in shape)]
    found = subprocess.run([sys.executable, "-c", _OWN, *words], capture_output=True, text=True, check=True)
    answer = found.stdout.strip().splitlines()[-1]
    return None if answer == "None" else float(answer)


def _resident(name: str) -> int:
    """An amount of this process's status [KiB]."""
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
