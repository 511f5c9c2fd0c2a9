# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Answer labelled sets and say how well that went: tables, a line a file, a report to look at, masks and overlays.

DATA is a folder of sets with targets.csv and splits.csv, a folder of image/mask pairs (give --modality and --target),
or a MONAI datalist (the same). No prompt is given unless --robot says how a simulated user prompts. Exit status: 0 all
well, 1 a file failed (no number is made of a part), 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.cli.common import add_options, print_json
from monai_effsam.cli.labelled import add_data_options, check_data, named_targets, read_cases
from monai_effsam.cli.model_options import add_model_options, check_model_options, open_segmenter
from monai_effsam.errors import UsageError

if TYPE_CHECKING:
    from monai_effsam.data.sets import Case
    from monai_effsam.evaluation import EvaluationSettings

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam evaluate`."""
    add_data_options(parser)
    parser.add_argument("--split", default="val", metavar="NAME", help="that is evaluated (default: val)")
    parser.add_argument(
        "--robot", choices=("box", "points"), help="a simulated user begins with a box, or with a click"
    )
    parser.add_argument(
        "--clicks",
        type=int,
        metavar="N",
        help="clicks of the simulated user, each where the answer is most wrong (default: 0 after a box, else 1)",
    )
    parser.add_argument(
        "--jitter",
        type=int,
        metavar="PX",
        help="how far box sides and clicks stray at most, at 1024 pixels a side (default: 0)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=2.0,
        metavar="MM",
        help="of surface Dice, in pixels where the spacing is unknown (default: 2)",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="PATH",
        help="other evaluation of the same files: its folder or images.csv",
    )
    parser.add_argument(
        "--worst", type=int, default=6, metavar="N", help="worst cases a set in the report (default: 6)"
    )
    parser.add_argument(
        "--write-docs",
        type=Path,
        metavar="FILE.md",
        help="also write the table here, and the summary beside it as FILE.json; both are replaced",
    )
    add_options(parser, "out", "seed", "overwrite", "json", required=("out",))
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Exit status 0; whatever fails is raised."""
    check_model_options(args)
    if args.write_docs and args.write_docs.suffix != ".md":
        raise UsageError(f"--write-docs: is '{args.write_docs}', expected a file that ends with .md.")
    check_data(args.data)
    cases = read_cases(args, named_targets(args))  # refuses a wrong folder or name before torch is loaded
    if not any(case.split == args.split for case in cases):
        raise UsageError(
            f"{args.data}: no file of the split '{args.split}', expected some. Choose --split or --sets."
        )
    summary = _evaluate(args, cases)
    if args.write_docs:
        _write_docs(args.write_docs, summary)
    if args.json:
        print_json(summary)
    elif not args.quiet:
        print((args.out / "table.md").read_text(encoding="utf-8"))
        print(f"report: {args.out / 'report.html'}")
    return 0


def _settings(args: argparse.Namespace) -> EvaluationSettings:
    """What is asked for besides model and data."""
    from monai_effsam.evaluation import EvaluationSettings, RobotUser

    robot = None
    if args.robot:
        clicks = args.clicks if args.clicks is not None else int(args.robot == "points")
        robot = RobotUser(args.robot, clicks, args.jitter or 0, args.seed)
    elif args.clicks is not None or args.jitter is not None:
        raise UsageError("--clicks and --jitter: nobody prompts, expected a simulated user. Add --robot.")
    return EvaluationSettings(
        split=args.split,
        seed=args.seed,
        tolerance=args.tolerance,
        robot=robot,
        compare=args.compare,
        worst=args.worst,
    )


def _evaluate(args: argparse.Namespace, cases: Sequence[Case]) -> dict[str, Any]:
    from tqdm import tqdm

    from monai_effsam.evaluation import data_words, evaluate_cases

    settings = _settings(args)
    segmenter = open_segmenter(args)
    sets = [name for name in (args.sets or "").split(",") if name]
    words = data_words(args.data, sets, args.modality, args.target)
    with tqdm(unit="step", delay=2, disable=True if args.quiet else None, leave=False) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return evaluate_cases(
            cases,
            segmenter,
            args.out,
            settings=settings,
            words=words,
            overwrite=args.overwrite,
            on_step=tell,
        )


def _write_docs(page: Path, summary: dict[str, Any]) -> None:
    from monai_effsam.data.io import write_bytes
    from monai_effsam.reports import results_page

    write_bytes(page, results_page(summary).encode())
    write_bytes(page.with_suffix(".json"), (json.dumps(summary, indent=1) + "\n").encode())
