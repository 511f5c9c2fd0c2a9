# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Segment labelled sets without a prompt and say how well that went: a table, a line a file, masks and overlays.

DATA_ROOT holds targets.csv and a folder a set, each with splits.csv. Exit status: 0 all well, 1 a file failed (no
number is made of a part), 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from monai_effsam.cli.common import add_options, print_json
from monai_effsam.cli.model_options import add_model_options, check_model_options, open_segmenter
from monai_effsam.errors import UsageError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam evaluate`."""
    parser.add_argument("data_root", type=Path, metavar="DATA_ROOT", help="folder that holds targets.csv")
    parser.add_argument("--sets", metavar="A,B", help="only these sets (default: all that have the split)")
    parser.add_argument("--split", default="val", metavar="NAME", help="of splits.csv (default: val)")
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
    from monai_effsam.data.sets import read_sets

    check_model_options(args)
    if args.write_docs and args.write_docs.suffix != ".md":
        raise UsageError(f"--write-docs: is '{args.write_docs}', expected a file that ends with .md.")
    names = None if args.sets is None else [name for name in args.sets.split(",") if name]
    read_sets(args.data_root, names, args.split)  # refuses a wrong folder or name before torch is loaded
    segmenter = open_segmenter(args)
    summary = _evaluate(args, segmenter, names)
    if args.write_docs:
        _write_docs(args.write_docs, summary)
    if args.json:
        print_json(summary)
    elif not args.quiet:
        print((args.out / "table.md").read_text(encoding="utf-8"))
    return 0


def _evaluate(args: argparse.Namespace, segmenter: Any, names: list[str] | None) -> dict[str, Any]:
    from tqdm import tqdm

    from monai_effsam.evaluation import evaluate_sets

    with tqdm(unit="file", delay=2, disable=True if args.quiet else None, leave=False) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return evaluate_sets(
            args.data_root,
            segmenter,
            args.out,
            sets=names,
            split=args.split,
            seed=args.seed,
            overwrite=args.overwrite,
            on_file=tell,
        )


def _write_docs(page: Path, summary: dict[str, Any]) -> None:
    from monai_effsam.data.io import write_bytes
    from monai_effsam.reports import results_page

    write_bytes(page, results_page(summary).encode())
    write_bytes(page.with_suffix(".json"), (json.dumps(summary, indent=1) + "\n").encode())
