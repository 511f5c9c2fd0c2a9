# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How many labels a strategy saves, measured on sets whose labels are known.

    python -m monai_effsam.labelling.simulating --data DIR --model model.pt --set kvasir_seg --set busi --out DIR

Every image goes through the trunk once; then each strategy and seed labels, trains and measures round after round. What
is done is passed over, so it may be stopped and started, and several processes may share one `--out` with different
seeds. With `--http` each run starts `effsam label` on copies of the images, and all goes through its HTTP API, as a
viewer's requests do: slower by far, since nothing is shared but encodings.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from monai_effsam.data.sets import Case, read_set
from monai_effsam.labelling.choosing.order import ORDERS
from monai_effsam.labelling.durable import write_durably
from monai_effsam.labelling.simulating.page import write_page
from monai_effsam.labelling.simulating.report import learning_curves, simulation_table
from monai_effsam.labelling.simulating.rounds import (
    RoundPlan,
    RoundRow,
    SimulatedApp,
    append_rows,
    draw_cases,
    read_rows,
    run_rounds,
)

__all__ = ["main"]

log = logging.getLogger("simulating")

STRATEGIES = ("random", "foreground", "disagreement", "diversity", "combined")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monai_effsam.labelling.simulating", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled sets")
    parser.add_argument(
        "--model", type=Path, required=True, help="self-prompting model that has not seen the sets"
    )
    parser.add_argument(
        "--set", action="append", required=True, dest="sets", help="name of a set; again for more"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="rows.jsonl, table.md, labels.svg, clicks.svg, maps"
    )
    parser.add_argument("--strategy", action="append", choices=list(ORDERS), help="default: all but first")
    parser.add_argument("--seed", action="append", type=int, help="default: 0, 1 and 2")
    for name, default, words in (
        ("start", 20, "labels of the first round"),
        ("step", 20, "labels of each further round"),
        ("rounds", 8, "trainings"),
        ("pool", 600, "images that may be labelled"),
        ("test", 100, "images measured on"),
        ("candidates", 150, "unlabelled images that are scored each round"),
        ("steps", 60, "steps of each training"),
        ("batch", 4, "slices a step"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{words} (default {default})")
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate (default 3e-4)")
    parser.add_argument("--controllers", action="store_true", help="train the modality controllers too")
    parser.add_argument(
        "--size", type=int, help="frame of the images [px], smaller is faster (default: the model's own)"
    )
    parser.add_argument(
        "--write-docs", type=Path, metavar="FILE.md", help="write a page and its pictures there"
    )
    parser.add_argument("--notes", type=Path, metavar="FILE.md", help="what the page has to say besides")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument(
        "--http", action="store_true", help="through the HTTP API of a server of its own a run"
    )
    parser.add_argument(
        "--settle", type=float, default=20.0, help="with --http: wait for new scores after a training [s]"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not done yet, and write table and pictures; the exit status."""
    import torch

    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for chatty in ("ignite", "monailabel"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    torch.set_num_threads(args.threads)
    if args.size:
        args.model = _resized(args.model, args.size, args.out / "model")
    rows_file = args.out / "rows.jsonl"
    plan = RoundPlan(args.start, args.step, args.rounds)
    done = {(r.set_name, r.strategy, r.seed) for r in read_rows(rows_file) if r.round == args.rounds}
    for set_name in args.sets:
        cases = read_set(args.data / set_name)
        shared = None
        for seed in args.seed or (0, 1, 2):
            for strategy in args.strategy or STRATEGIES:
                if (set_name, strategy, seed) in done:
                    continue
                shared = shared or _shared(args, set_name, cases)
                with _app(args, cases, f"{set_name}_{strategy}_{seed}", seed, shared) as app:
                    rows = list(_told(run_rounds(app, plan, set_name, strategy, seed, time.monotonic)))
                append_rows(rows_file, rows)  # whole runs only: one that was stopped is done again
    rows = read_rows(rows_file)
    if rows:
        write_durably(args.out / "table.md", simulation_table(rows).encode())
        write_durably(args.out / "labels.svg", learning_curves(rows).encode())
        write_durably(args.out / "clicks.svg", learning_curves(rows, clicks=True).encode())
    if args.write_docs:
        write_page(args.write_docs, rows, arguments or sys.argv[1:], args.notes)
    return 0


def _resized(model: Path, size: int, folder: Path) -> Path:
    """A copy of a model that sees all images at `size` pixels a side."""
    folder.mkdir(parents=True, exist_ok=True)
    card = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))
    for spec in card["specs"].values():
        spec["size"] = size
    write_durably(folder / "model.json", json.dumps(card).encode())
    write_durably(folder / "model.pt", model.read_bytes())
    return folder / "model.pt"


def _shared(args: argparse.Namespace, set_name: str, cases: Sequence[Case]) -> object:
    """What all runs of a set share: its maps, or with servers nothing."""
    if args.http:
        return True
    from monai_effsam.labelling.simulating.in_process import cached_set

    file = args.out / f"maps_{set_name}.pt"
    return cached_set(args.model, cases, pool=args.pool, test=args.test, file=file)


@contextmanager
def _app(
    args: argparse.Namespace, cases: Sequence[Case], name: str, seed: int, shared: object
) -> Iterator[SimulatedApp]:
    """A fresh app for one run of that name."""
    if args.http:
        from monai_effsam.labelling.simulating.over_http import ServedApp, served

        pool, test = draw_cases(cases, args.pool, args.test)
        options = {
            "epochs": 1, "epoch_length": args.steps, "batch": args.batch, "rate": args.rate, "seed": seed,
            "train": "controllers and decoder" if args.controllers else "decoder",
            "held_share": 0,  # every label trains, and every model is used: another set judges here
        }  # fmt: skip
        with served(pool, args.out / f"served_{name}", args.model, args.out / "cache") as address:
            yield ServedApp(address, pool, test, seed, options=options, settle=args.settle)
        return
    from monai_effsam.labelling.learning.finetune import Learning
    from monai_effsam.labelling.simulating.in_process import CachedSet, InProcessApp

    assert isinstance(shared, CachedSet)
    learning = Learning(args.controllers, 1, args.steps, args.batch, args.rate, seed=seed)
    yield InProcessApp(shared, learning, seed, candidates=args.candidates)


def _told(rows: Iterable[RoundRow]) -> Iterator[RoundRow]:
    """The rows, each told to the log."""
    for row in rows:
        log.info(
            "%s %s seed %d: %d labels, %d clicks, Dice %.4f, %.0f s",
            row.set_name, row.strategy, row.seed, row.labels, row.clicks, row.dice, row.seconds,
        )  # fmt: skip
        yield row


if __name__ == "__main__":
    raise SystemExit(main())
