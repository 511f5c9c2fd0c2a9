# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Print versions, devices, and which extras are missing with the command that installs them.

Exit status 1 when something that every command needs is missing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
from typing import Any

from monai_effsam import __version__
from monai_effsam.cli.common import add_options, print_json

__all__ = ["add_arguments", "run"]

_DISTRIBUTION = "monai-effsam"
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*(?:;.*extra == ['\"](?P<extra>[a-z]+)['\"])?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `effsam doctor`."""
    add_options(parser, "json")


def run(args: argparse.Namespace) -> int:
    """Look around and tell."""
    packages = _packages()
    report: dict[str, Any] = {
        "effsam": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": _devices(),
        "packages": packages,
    }
    if args.json:
        print_json(report)
    else:
        _print(report)
    return 0 if packages.get("core") and None not in packages["core"].values() and report["devices"] else 1


def _packages() -> dict[str, dict[str, str | None]]:
    """Versions by extra ("core" for what is always needed), None where a package is missing."""
    found: dict[str, dict[str, str | None]] = {}
    try:
        requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return found
    for line in requirements:
        match = _REQUIREMENT.match(line)
        if match:
            found.setdefault(match["extra"] or "core", {})[match["name"]] = _version(match["name"])
    return found


def _version(package: str) -> str | None:
    """Installed version of a package, None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    """What torch sees, in words; empty when torch cannot be loaded."""
    try:
        import torch
    except (ImportError, OSError):
        return []
    seen = [f"cpu ({torch.get_num_threads()} threads)"]
    seen += [
        f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())
    ]
    return seen + (["mps"] if torch.backends.mps.is_available() else [])


def _print(report: dict[str, Any]) -> None:
    """The report for people."""
    for key in ("effsam", "python", "platform", "cpus"):
        print(f"{key:<10}{report[key]}")
    print(f"{'devices':<10}{', '.join(report['devices']) or 'none: torch cannot be loaded'}")
    if not report["packages"]:
        print(f"{'packages':<10}unknown, this is not an installed copy. Install it with: pip install -e .")
    for extra, packages in report["packages"].items():
        print(f"\n{extra}")
        for name, version in packages.items():
            print(f"  {name:<26}{version or 'missing'}")
        if None in packages.values():
            target = _DISTRIBUTION if extra == "core" else f"'{_DISTRIBUTION}[{extra}]'"
            print(f"  install with: pip install {target}")
