# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What TiC's parts are worth, on sets at hand: against a convolution net and a ViT of equal parameters and training.

    python -m monai_effsam.studies.tic DATA -o OUT --task breast --task modality --seeds 3 --write-docs FILE.md

Seed by seed every network learns every task at 128 px and is tested there and at other sizes; then time and memory are
measured against the size. What is done is passed over, so it may be stopped and started: whole runs only count, and
the page tells whole seeds only. `--seeds 0` trains nothing, `--grow` without sizes measures nothing: with both, the
page is written of what is there.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from monai_effsam.errors import EffsamError

if TYPE_CHECKING:
    from monai_effsam.studies.tic.runs import StudyPlan

__all__ = ["main"]

log = logging.getLogger("studies.tic")

TASK_NAMES = ("breast", "modality", "modality-zoom")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monai_effsam.studies.tic", description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of labelled sets")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="gets rows.jsonl, growth.jsonl, plan.json"
    )
    parser.add_argument("--task", action="append", choices=TASK_NAMES, help="again for more (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each network and task (default 3)")
    parser.add_argument(
        "--steps",
        type=int,
        action="append",
        help="of the training, one a task in their order (default 220, 300, 300)",
    )
    parser.add_argument("--batch", type=int, default=16, help="views a step (default 16)")
    parser.add_argument(
        "--grow", type=int, nargs="*", default=[256, 512, 1024, 2048],
        help="sides for time and memory [px] (default 256 512 1024 2048)",
    )  # fmt: skip
    parser.add_argument(
        "--largest-plain",
        type=int,
        default=1024,
        help="side above which plain attention is left out (default 1024)",
    )
    parser.add_argument(
        "--write-docs", type=Path, metavar="FILE.md", help="write a page and its pictures there"
    )
    parser.add_argument("--notes", type=Path, metavar="FILE.md", help="what the page has to say besides")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not done yet and write the page; the exit status, 2 with one line on what is wrong."""
    import torch

    words = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("ignite").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    try:
        _run(args, words)
    except EffsamError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _run(args: argparse.Namespace, words: Sequence[str]) -> None:
    from monai_effsam.studies.tic.growth import append_growth, measure_growth, read_growth
    from monai_effsam.studies.tic.page import write_study
    from monai_effsam.studies.tic.runs import StudyPlan, hold_to_plan, read_rows

    tasks = args.task or TASK_NAMES
    plan = StudyPlan(batch=args.batch)
    plan = replace(plan, steps={**plan.steps, **dict(zip(tasks, args.steps or (), strict=False))})
    hold_to_plan(args.out / "plan.json", asdict(plan))
    if args.seeds:
        _train_all(args, tasks, plan)
    growth = args.out / "growth.jsonl"
    done = {row.side for row in read_growth(growth)}
    for side in args.grow:
        if side not in done:
            append_growth(growth, measure_growth(side, args.largest_plain))
            log.info("time and memory at %d px", side)
    if args.write_docs:
        rows, grown = read_rows(args.out / "rows.jsonl"), read_growth(args.out / "growth.jsonl")
        write_study(args.write_docs, rows, grown, plan, words, args.notes)


def _train_all(args: argparse.Namespace, tasks: Sequence[str], plan: StudyPlan) -> None:
    """Every network and task, seed by seed, but for what is done."""
    from monai_effsam.studies.tic.batches import val_images
    from monai_effsam.studies.tic.nets import EXTRA_NETS, TASK_NETS
    from monai_effsam.studies.tic.runs import append_rows, read_rows, run_study
    from monai_effsam.studies.tic.tasks import read_task

    file = args.out / "rows.jsonl"
    done = {(row.task, row.net, row.seed) for row in read_rows(file)}
    read = {}
    for seed in range(args.seeds):
        for name in tasks:
            for net in (*TASK_NETS[name], *EXTRA_NETS.get(name, ())):
                if (name, net, seed) in done:
                    continue
                if name not in read:
                    task = read_task(name, args.data, plan.most.get(name))
                    read[name] = task, {side: val_images(task, side) for side in plan.sides}
                rows = run_study(read[name][0], net, seed, plan, read[name][1])
                append_rows(file, rows)
                for row in rows:
                    log.info(
                        "%s %s seed %d at %d px: accuracy %.3f, balanced %.3f, AUC %.3f, in training %.3f, %.0f s",
                        name, net, seed, row.side, row.accuracy, row.balanced, row.auc, row.fitted, row.seconds,
                    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
