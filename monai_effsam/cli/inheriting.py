# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Weights of a network that has seen photographs, for searched encoders to begin with: options of several commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from monai_effsam.errors import UsageError

if TYPE_CHECKING:
    from monai_effsam.nas.inheritance import MobileTrunk

__all__ = ["add_inherit_network", "check_inherit", "named_ancestor"]


def add_inherit_network(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """The option that names the network of `--inherit FILE`."""
    parser.add_argument(
        "--inherit-network",
        metavar="NAME",
        help="whose weights --inherit FILE holds: a timm network of inverted residuals without squeeze-excitation "
        "(default: tf_efficientnet_lite0)",
    )


def check_inherit(args: argparse.Namespace) -> None:
    """What is wrong with the request itself.

    Raises:
        UsageError: a file that is not there, or a network without a file.
    """
    named = args.inherit if isinstance(args.inherit, str | Path) else None
    if args.inherit_network and named is None:
        raise UsageError(
            f"--inherit-network {args.inherit_network}: is given without --inherit FILE, expected its weights."
        )
    if named is not None and not Path(named).is_file():
        raise UsageError(f"--inherit {named}: no such file. Give weights of a timm network, .safetensors.")


def named_ancestor(args: argparse.Namespace) -> MobileTrunk | None:
    """The trunk of `--inherit FILE`; None without a file. Raises as `read_trunk`."""
    if not isinstance(args.inherit, str | Path):
        return None
    from monai_effsam.nas.inheritance import INHERITED_TRUNK, read_trunk

    trunk = read_trunk(Path(args.inherit), args.inherit_network or INHERITED_TRUNK)
    print(f"inherits: {trunk.name}, sha256 {trunk.sha256[:12]}")
    return trunk
