# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Write a model as ONNX and OpenVINO graphs, for runtimes that are faster on a CPU and need no torch.

The folder can be named wherever --model takes a model. Each graph is compared with torch before the command ends.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_effsam.cli.common import add_options, print_json
from monai_effsam.errors import UnknownNameError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam export`."""
    parser.add_argument(
        "model",
        nargs="?",
        type=Path,
        metavar="MODEL",
        help="model.pt, run or bundle folder, shipped bundle, or SAM-like weights (default: esp_medsam)",
    )
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="NAME",
        help="onnxruntime or openvino; repeat for both, the preferred one first (default: both)",
    )
    parser.add_argument(
        "--family", metavar="NAME", help="of SAM-like weights, where their keys do not tell it"
    )
    add_options(parser, "out", "overwrite", "json", required=("out",))


def run(args: argparse.Namespace) -> int:
    """Exit status 0; whatever fails is raised."""
    from monai_effsam.inference.model_path import find_model_path
    from monai_effsam.inference.runtimes import RUNTIMES

    known = [name for name in RUNTIMES if name != "torch"]
    runtimes = list(dict.fromkeys(args.runtime or known))
    for name in runtimes:
        if name not in known:
            raise UnknownNameError("runtime", name, known)
    source = find_model_path(args.model, "MODEL")
    from monai_effsam.checkpoints import load_checkpoint
    from monai_effsam.inference.export import export_model, parity

    model = load_checkpoint(source, family=args.family).model
    folder = export_model(model, args.out, runtimes, overwrite=args.overwrite)
    differences = {name: parity(model, folder, name) for name in runtimes}
    if args.json:
        print_json({"folder": str(folder), "differences": differences})
    elif not args.quiet:
        for name, worst in differences.items():
            print(
                f"{name}: mask logits differ from torch by at most {worst['mask_logits']:.1e} "
                f"(of {worst['largest_logit']:.0f}), quality by {worst['quality']:.1e}"
            )
        print(f"{folder}  (use it as --model {folder})")
    return 0
