# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The options of commands that run a model: which one, in which runtime, on what, with how many threads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from monai_effsam.cli.common import add_options, check_device
from monai_effsam.errors import UsageError

if TYPE_CHECKING:
    from monai_effsam.inference.segmenter import Segmenter

__all__ = ["add_model_options", "check_model_options", "open_model", "open_segmenter", "teacher_path"]


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--model, --family, --device, --runtime and --threads."""
    add_options(parser, "model")
    parser.add_argument(
        "--family",
        metavar="NAME",
        help="of SAM-like weights, where their keys do not tell it; MedSAM's are SAM's",
    )
    add_options(parser, "device")
    parser.add_argument(
        "--runtime",
        metavar="NAME",
        help="torch, onnxruntime or openvino, the last two for what `effsam export` wrote (default: as the model is)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of the network (default: the runtime decides)"
    )


def check_model_options(args: argparse.Namespace) -> Path:
    """The path of the model that is asked for, before anything heavy is loaded.

    Raises:
        UsageError: a model that is not there, a family of the default model, or no number of threads.
        UnknownNameError: no such runtime.
    """
    from monai_effsam.errors import UnknownNameError
    from monai_effsam.inference.model_path import find_model_path
    from monai_effsam.inference.runtimes import RUNTIMES

    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads: is {args.threads}, expected at least 1.")
    if args.runtime is not None and args.runtime not in RUNTIMES:
        raise UnknownNameError("runtime", args.runtime, RUNTIMES)
    if args.family is not None and args.model is None:
        raise UsageError(
            f"--family {args.family}: no model is named, expected weights of others. Give --model."
        )
    return find_model_path(args.model)


def teacher_path(name: str) -> Path | str:
    """What `load_teacher` wants for a `--teacher`: `random`, a file or folder, or the folder of a bundle that ships.

    Raises:
        UsageError: there is nothing of that name.
    """
    from monai_effsam.engines.teacher import RANDOM
    from monai_effsam.inference.model_path import find_model_path

    return RANDOM if name == RANDOM else find_model_path(Path(name), "--teacher")


def open_segmenter(args: argparse.Namespace) -> Segmenter:
    """The model in its runtime on its device; this is where torch is loaded, if the runtime is torch."""
    model = check_model_options(args)
    return open_model(model, args.runtime, args.device, args.threads, args.family)


def open_model(
    path: Path, runtime: str | None, device: str, threads: int | None, family: str | None = None
) -> Segmenter:
    """A model in a runtime on a device, `auto` among them; torch is loaded if the runtime is torch."""
    from monai_effsam.inference.runtimes.exported import is_exported
    from monai_effsam.inference.segmenter import Segmenter

    if not is_exported(path) and runtime in (None, "torch"):
        device = check_device(device)
    elif device == "auto":
        device = "cpu"
    return Segmenter.open(path, runtime, device, threads=threads, family=family)
