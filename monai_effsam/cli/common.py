# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What the commands share: options of one spelling and meaning, the device check, JSON for machines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_effsam.errors import UnknownNameError, UsageError

__all__ = ["add_options", "add_verbosity", "check_device", "parse_batches", "print_json"]


def _seed(text: str) -> int:
    """A seed that numpy and torch both take."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"seed is '{text}', expected a number from 0 to {2**32 - 1}")
    return int(text)


_OPTIONS: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "out": (("-o", "--out"), {"type": Path, "metavar": "DIR", "help": "folder to write to"}),
    "model": (
        ("--model",),
        {
            "type": Path,
            "metavar": "PATH",
            "help": "model.pt, run or bundle folder, or name of a shipped bundle (default: esp_medsam)",
        },
    ),
    "device": (
        ("--device",),
        {"default": "auto", "metavar": "NAME", "help": "auto, cpu, cuda, cuda:N or mps (default: auto)"},
    ),
    "seed": (("--seed",), {"type": _seed, "default": 0, "metavar": "N", "help": "random seed (default: 0)"}),
    "overwrite": (("--overwrite",), {"action": "store_true", "help": "replace output that exists"}),
    "json": (("--json",), {"action": "store_true", "help": "print JSON, for machines"}),
}


def add_options(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, *names: str, required: tuple[str, ...] = ()
) -> None:
    """Add the shared options of these names, in this order.

    Args:
        parser: the command's parser, or a group of its options.
        names: of `out`, `model`, `device`, `seed`, `overwrite`, `json`.
        required: those of them that must be given.

    Raises:
        UnknownNameError: a name that is no shared option.
    """
    for name in names:
        if name not in _OPTIONS:
            raise UnknownNameError("shared option", name, _OPTIONS)
        flags, settings = _OPTIONS[name]
        parser.add_argument(*flags, **(settings | {"required": True} if name in required else settings))


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add -v and -q, which every command has."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-v", "--verbose", action="count", default=0, help="say more; show where errors come from"
    )
    group.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")


def check_device(name: str) -> str:
    """The torch device that `--device` names; `auto` takes a GPU where there is one.

    Raises:
        UsageError: torch does not see such a device; the message says what it sees.
    """
    import torch

    seen = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        seen.append("mps")
    if name == "auto":
        return next((device for device in ("cuda:0", "mps") if device in seen), "cpu")
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in seen:
        raise UsageError(
            f"device is '{name}', expected one that torch {torch.__version__} sees: {', '.join(seen)}."
        )
    return wanted


def parse_batches(text: str | None) -> tuple[int, ...]:
    """Numbers of pictures at once, of a list with commas; none of None.

    Raises:
        UsageError: no positive numbers, or one that is given twice.
    """
    if text is None:
        return ()
    numbers = [int(word) if word.strip().isdecimal() else 0 for word in text.split(",")]
    if min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise UsageError(
            f"--batches: is '{text}', expected different numbers from 1 on, as in --batches 1,16."
        )
    return tuple(numbers)


def print_json(value: Any) -> None:
    """Print a value as JSON, readable by people too."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))
