# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What `effsam profile --table` does: times of everything that a searched network may consist of, on this machine."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.cli.common import check_device, print_json
from monai_effsam.errors import UsageError

if TYPE_CHECKING:
    from monai_effsam.inference.stopwatch import RuntimeStopwatch
    from monai_effsam.nas.cost import DecoderPiece, LatencyTable, NetworkPiece
    from monai_effsam.nas.space import SearchSpace

__all__ = ["add_table_options", "profile_table"]

_FIT_SEED, _CHECK_SEED = 1, 2  # of networks that fit the table, and of others that check it
_FIT_NETS = 24


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam profile --table`."""
    group = parser.add_argument_group("latency table, for a search")
    group.add_argument(
        "--table",
        type=Path,
        metavar="FILE.json",
        help="measure the pieces of a search space on this machine, with --runtime (default: "
        "onnxruntime), --threads and, for a GPU, --device; what the "
        "file has already is kept, so an interrupted run is taken up again",
    )
    group.add_argument(
        "--space",
        default=None,
        metavar="NAME",
        help="search space to measure: tiny, small or full (default: small)",
    )
    group.add_argument(
        "--references", action="store_true", help="also window and global attention, which no space has"
    )
    group.add_argument(
        "--check",
        type=int,
        metavar="N",
        help="with --table: compare what it predicts with N measured encoders at random (30 tell enough)",
    )
    group.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default=None,
        help="with --table: wall time (default), or CPU time of this process, steadier on a busy machine, one thread",
    )


def profile_table(args: argparse.Namespace) -> int:
    """Measure, fit and check as far as that is not done; exit status 0."""
    from monai_effsam.inference.stopwatch import RuntimeStopwatch
    from monai_effsam.nas.cost import LatencyTable
    from monai_effsam.nas.space import find_space

    _refuse(args)
    space = find_space(args.space or "small")
    device = "cpu" if args.device == "auto" else check_device(args.device)
    stopwatch = RuntimeStopwatch(
        args.runtime or "onnxruntime",
        device,
        args.threads,
        clock=args.clock or "wall",
        rounds=args.rounds * 3,
    )
    if args.table.exists():
        table = LatencyTable.load(args.table)
        table.check_machine(stopwatch.machine, args.table)
    else:
        if not args.table.parent.is_dir() or not os.access(args.table.parent, os.W_OK):
            raise UsageError(
                f"--table: {args.table.parent} is no folder to write to, expected one. Make it first."
            )
        table = LatencyTable(stopwatch.machine)
    measured = _measure(args, table, space, stopwatch)
    if measured or not table.fit.nets or table.space != space.name:
        table.space = space.name
        _fit(args, table, space, stopwatch)
    if args.check:
        _check(args, table, space, stopwatch)
    table.save(args.table)
    _tell(args, table, measured)
    return 0


def _refuse(args: argparse.Namespace) -> None:
    if args.inputs or args.model or args.every_runtime or args.write_docs or args.reference:
        raise UsageError("--table: measures no model, expected neither INPUT nor --model. Leave them out.")
    if args.check is not None and args.check < 3:
        raise UsageError(f"--check: is {args.check}, expected at least 3 networks.")


@contextmanager
def _bar(args: argparse.Namespace, what: str, total: int) -> Iterator[Callable[[str], None]]:
    from tqdm import tqdm

    disable = True if args.quiet else None
    with tqdm(total=total, desc=what, unit="piece", delay=2, disable=disable, leave=False) as bar:

        def step(_: str) -> None:
            bar.update()

        yield step


def _measure(
    args: argparse.Namespace, table: LatencyTable, space: SearchSpace, stopwatch: RuntimeStopwatch
) -> int:
    from monai_effsam.inference.export.promptable_sam import PromptedDecoderGraph
    from monai_effsam.nas.cost import measure_table, space_decoders, space_pieces

    pieces: list[NetworkPiece | DecoderPiece] = [
        *space_decoders(space),
        *space_pieces(space, references=args.references),
    ]
    with _bar(args, "pieces", len(table.missing(pieces))) as step:
        return measure_table(
            table, pieces, stopwatch, args.table, decoder_graph=PromptedDecoderGraph, on_piece=step
        )


def _fit(
    args: argparse.Namespace, table: LatencyTable, space: SearchSpace, stopwatch: RuntimeStopwatch
) -> None:
    from monai_effsam.nas.cost import fit_table, measure_encoders, sampled

    nets = sampled(space, _FIT_NETS, _FIT_SEED)
    with _bar(args, "fit", len(nets)) as step:
        fit_table(table, nets, measure_encoders(nets, stopwatch, on_net=step))
    table.save(args.table)


def _check(
    args: argparse.Namespace, table: LatencyTable, space: SearchSpace, stopwatch: RuntimeStopwatch
) -> None:
    from monai_effsam.nas.cost import check_table, measure_encoders, sampled

    seen = {one.id for one in sampled(space, _FIT_NETS, _FIT_SEED)}
    drawn: Sequence[Any] = sampled(space, args.check + _FIT_NETS, _CHECK_SEED)
    nets = [one for one in drawn if one.id not in seen][: args.check]
    with _bar(args, "check", len(nets)) as step:
        check_table(table, nets, measure_encoders(nets, stopwatch, on_net=step))


def _tell(args: argparse.Namespace, table: LatencyTable, measured: int) -> None:
    fit, check = table.fit, table.fit.check
    if args.json:
        told = {"machine": dict(table.machine), "entries": len(table.entries), "measured": measured}
        fitted = {"overhead_ms": fit.overhead_ms, "factors": dict(fit.factors), "nets": fit.nets}
        print_json({**told, "fit": fitted, "check": dict(check)})
    elif not args.quiet:
        where = "{runtime} on {device}, {threads} threads, {cpu}".format(**table.machine)
        print(f"{args.table}: {len(table.entries)} entries, {measured} of them new; {where}")
        factors = ", ".join(f"{name} {value:.2f}" for name, value in fit.factors.items())
        print(f"fit to {fit.nets} encoders: {fit.overhead_ms:.2f} ms and the sum of pieces times {factors}")
        if check:
            print(
                f"check on {check['nets']:.0f} others, {check['fastest_ms']:.1f} to {check['slowest_ms']:.1f} ms: "
                f"Kendall's tau {check['kendall_tau']:.2f}, median error {check['median_error']:.0%}"
            )
