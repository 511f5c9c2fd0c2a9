# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Write a model as ONNX and OpenVINO graphs, for runtimes that are faster on a CPU and need no torch.

The folder can be named wherever --model takes a model. Each graph is compared with torch before the command ends. With
--int8 the encoder of a promptable model computes in 8 bits; --calibrate is a folder of pictures like those that it will
see, or labelled images as `effsam train` takes them, of which the split `train` alone is used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.cli.common import add_options, print_json
from monai_effsam.cli.labelled import (
    add_label_options,
    check_data,
    named_targets,
    training_cases,
    training_files,
)
from monai_effsam.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from monai_effsam.checkpoints import LoadedModel
    from monai_effsam.inference.export import Int8Settings

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
        help="onnxruntime or openvino; repeat for both, the preferred one first (default: both; with --int8 openvino)",
    )
    parser.add_argument(
        "--family", metavar="NAME", help="of SAM-like weights, where their keys do not tell it"
    )
    _add_int8_options(parser)
    add_options(parser, "out", "seed", "overwrite", "json", required=("out",))


def _add_int8_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("8-bit arithmetic")
    group.add_argument("--int8", action="store_true", help="quantise the encoder; needs --calibrate")
    group.add_argument(
        "--int8-decoder", action="store_true", help="quantise the decoder too, which hardly pays"
    )
    group.add_argument("--calibrate", type=Path, metavar="PATH", dest="data", help="see above")
    group.add_argument(
        "--pictures", type=int, default=128, metavar="N", help="of them, at most (default: 128)"
    )
    group.add_argument(
        "--max-drop",
        type=float,
        default=0.005,
        metavar="X",
        help="what the Dice may lose, with the labels or, where there are none, with fp32's masks (default: 0.005)",
    )
    add_label_options(parser)


def run(args: argparse.Namespace) -> int:
    """Exit status 0; whatever fails is raised."""
    from monai_effsam.inference.model_path import find_model_path
    from monai_effsam.inference.runtimes import RUNTIMES

    known = [name for name in RUNTIMES if name != "torch"]
    runtimes = list(dict.fromkeys(args.runtime or (["openvino"] if args.int8 else known)))
    for name in runtimes:
        if name not in known:
            raise UnknownNameError("runtime", name, known)
    _check(args)
    source = find_model_path(args.model, "MODEL")
    from monai_effsam.checkpoints import load_checkpoint
    from monai_effsam.evaluation import model_cost
    from monai_effsam.inference.export import export_model, parity

    model = load_checkpoint(source, family=args.family).model
    int8 = _int8(args, model) if args.int8 else None
    card = {"cost": model_cost(model)}
    folder = export_model(model, args.out, runtimes, overwrite=args.overwrite, int8=int8, card=card)
    differences = {name: parity(model, folder, name) for name in runtimes}
    if args.json:
        print_json({"folder": str(folder), "differences": differences, **_told(folder)})
    elif not args.quiet:
        _print(folder, differences)
    return 0


def _print(folder: Path, differences: dict[str, dict[str, float]]) -> None:
    if told := _told(folder).get("int8"):
        print(
            f"int8 {' and '.join(told['roles'])}: masks have a Dice of {told['dice']:.4f} with those of fp32, and lose "
            f"{told['lost']:.4f}, on {told['judged']} training pictures; calibrated on {told['calibrated']} others"
        )
        if told["lost"] > told["max_drop"]:
            print(f"that is more than --max-drop {told['max_drop']}", file=sys.stderr)
    for name, worst in differences.items():
        print(
            f"{name}: mask logits differ from torch by at most {worst['mask_logits']:.1e} "
            f"(of {worst['largest_logit']:.0f}), quality by {worst['quality']:.1e}"
        )
    print(f"{folder}  (use it as --model {folder})")


def _check(args: argparse.Namespace) -> None:
    """Refuse what can be seen to be wrong before torch is loaded."""
    if args.int8 != (args.data is not None):
        raise UsageError("--int8 and --calibrate: one is given alone, expected both or neither. Give both.")
    if args.int8_decoder and not args.int8:
        raise UsageError(
            "--int8-decoder: is given without --int8, expected both. Add --int8 --calibrate PATH."
        )
    if not 0 <= args.max_drop < 1:
        raise UsageError(f"--max-drop: is {args.max_drop}, expected 0 to 1.")
    if args.data is not None:
        check_data(args.data)
        named_targets(args)


def _int8(args: argparse.Namespace, model: LoadedModel) -> Int8Settings:
    """Training pictures, evenly spread over the files."""
    from monai_effsam.data.pictures import Pictures
    from monai_effsam.inference.export import Int8Settings, calibration_pictures

    cases = training_cases(args, named_targets(args))
    files = training_files(args, cases, max(spec.size for spec in model.specs.values()))
    files = files[:: -(-len(files) // args.pictures)] if args.pictures > 0 else []
    pictures = Pictures(files) if files else []
    for _, reason in getattr(pictures, "failures", ()):
        print(f"passed over: {reason}", file=sys.stderr)
    return Int8Settings(
        calibration_pictures(pictures[: args.pictures], model.specs), args.max_drop, args.int8_decoder
    )


def _told(folder: Path) -> dict[str, Any]:
    """What the manifest says of int8."""
    from monai_effsam.inference.runtimes.exported import read_exported

    card = read_exported(folder).card
    return {"int8": card["int8"]} if "int8" in card else {}
