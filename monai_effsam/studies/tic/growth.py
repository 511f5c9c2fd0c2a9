# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Time and memory of the compared networks against the size of the image."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from monai_effsam.evaluation.attention_speed.areas import area_exponent
from monai_effsam.evaluation.attention_speed.turns import times_in_turns_of
from monai_effsam.studies.tic.nets import CONVOLUTION, TIC, VIT, plain_attention, study_net

__all__ = [
    "GROWING",
    "PLAIN_VIT",
    "GrowthRow",
    "append_growth",
    "exponents",
    "growth_net",
    "measure_growth",
    "read_growth",
]

PLAIN_VIT = "ViT, plain attention"
"""The same ViT, its matrix of weights kept whole; the other one has torch's memory-efficient attention."""

GROWING = (TIC, CONVOLUTION, VIT, PLAIN_VIT)

_CLASSES, _TRAINED_AT = 7, 128
_MANY = 1024  # side above which two turns count rather than five
_OWN = """
import sys
import torch
from monai_effsam.evaluation.attention_speed.memory import extra_peak_mib
from monai_effsam.studies.tic.growth import growth_net
torch.set_num_threads(1)
net, side = growth_net(sys.argv[1]), int(sys.argv[2])
with torch.inference_mode():
    net(torch.randn(1, 3, 64, 64))  # what is loaded at the first call does not count
    image = torch.randn(1, 3, side, side)
    print(extra_peak_mib(lambda: net(image)))
"""


@dataclass(frozen=True, slots=True)
class GrowthRow:
    """One network at one size, one image, one thread.

    Args:
        net: name in `GROWING`.
        side: of the image [px].
        milliseconds: of the processor, the least of some turns.
        mebibytes: most memory above what the process held before; None where the system does not tell.
    """

    net: str
    side: int
    milliseconds: float
    mebibytes: float | None


def growth_net(name: str) -> nn.Module:
    """A network of `GROWING` in eval mode, with random weights: neither time nor memory depends on them."""
    net = study_net(VIT if name == PLAIN_VIT else name, _CLASSES, _TRAINED_AT).eval()
    return plain_attention(net) if name == PLAIN_VIT else net


@torch.inference_mode()
def measure_growth(side: int, largest_plain: int) -> list[GrowthRow]:
    """All networks in turns at one size, and the memory of each in a process of its own.

    Args:
        side: of the image [px].
        largest_plain: side above which the plain attention is left out: its matrices would not fit.
    """
    names = [name for name in GROWING if name != PLAIN_VIT or side <= largest_plain]
    image = torch.randn(1, 3, side, side)
    calls = {name: partial(growth_net(name), image) for name in names}
    times = times_in_turns_of(calls, 5 if side <= _MANY else 2)
    return [GrowthRow(name, side, round(times[name], 2), _peak(name, side)) for name in names]


def _peak(name: str, side: int) -> float | None:
    words = [sys.executable, "-c", _OWN, name, str(side)]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    answer = found.stdout.strip().splitlines()[-1]
    return None if answer == "None" else round(float(answer), 1)


def read_growth(path: Path) -> list[GrowthRow]:
    """Rows of a JSON lines file; none where it is missing."""
    if not path.is_file():
        return []
    return [GrowthRow(**json.loads(text)) for text in path.read_text(encoding="utf-8").splitlines() if text]


def append_growth(path: Path, rows: Sequence[GrowthRow]) -> None:
    """Add the rows of one size to a JSON lines file, in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(asdict(row)) + "\n" for row in rows))


def exponents(rows: Sequence[GrowthRow], what: str) -> Mapping[str, float]:
    """Net -> slope of log(`milliseconds` or `mebibytes`) over log(area): 1 is linear in the area, 2 quadratic."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        value = getattr(row, what)
        if value:
            found.setdefault(row.net, {})[row.side] = value
    return {net: area_exponent(points) for net, points in found.items() if len(points) > 1}
