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

__all__ = ["add_table_options", "keep_table", "open_stopwatch", "profile_table", "unmeasured"]

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
    from monai_effsam.nas.space import find_space

    _refuse(args)
    space, stopwatch = find_space(args.space or "small"), open_stopwatch(args, rounds=3 * args.rounds)
    table, measured = keep_table(args.table, space, stopwatch, references=args.references, quiet=args.quiet)
    if args.check:
        _check(args, table, space, stopwatch)
        table.save(args.table)
    _tell(args, table, measured)
    return 0


def open_stopwatch(args: argparse.Namespace, *, rounds: int = 15) -> RuntimeStopwatch:
    """The stopwatch that `--runtime`, `--device`, `--threads` and `--clock` ask for, with so many readings a call."""
    from monai_effsam.inference.stopwatch import RuntimeStopwatch

    device = "cpu" if args.device == "auto" else check_device(args.device)
    runtime, clock = args.runtime or "onnxruntime", args.clock or "wall"
    return RuntimeStopwatch(runtime, device, args.threads, clock=clock, rounds=rounds)


def keep_table(
    file: Path,
    space: SearchSpace,
    stopwatch: RuntimeStopwatch,
    *,
    references: bool = False,
    quiet: bool = False,
) -> tuple[LatencyTable, int]:
    """The latency table of a file, which gets what it lacks of a space.

    Args:
        file: made where it is not there.
        space: to measure.
        stopwatch: of the machine and runtime.
        references: also the operations that no space has.
        quiet: without progress bars.

    Returns:
        The table, and how many pieces were measured.

    Raises:
        UsageError: a table of another machine or runtime, or a place that cannot be written to.
        DataError: the file is no latency table.
    """
    from monai_effsam.nas.cost import LatencyTable

    if file.exists():
        table = LatencyTable.load(file)
        table.check_machine(stopwatch.machine, file)
    else:
        if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
            raise UsageError(f"--table: {file.parent} is no folder to write to, expected one. Make it first.")
        table = LatencyTable(stopwatch.machine)
    measured = _measure(file, table, _pieces(space, references=references), stopwatch, quiet=quiet)
    if measured or not _fitted(table, space):
        table.space = space.name
        _fit(table, space, stopwatch, quiet=quiet)
        table.save(file)
    return table, measured


def unmeasured(file: Path, space: SearchSpace) -> int:
    """How many pieces and networks `keep_table` would time; errors as there, but the machine is not looked at."""
    from monai_effsam.nas.cost import LatencyTable

    table = LatencyTable.load(file) if file.exists() else LatencyTable({})
    missing = len(table.missing(_pieces(space)))
    return missing + (_FIT_NETS if missing or not _fitted(table, space) else 0)


def _fitted(table: LatencyTable, space: SearchSpace) -> bool:
    return table.fit.nets > 0 and table.space == space.name


def _refuse(args: argparse.Namespace) -> None:
    if args.inputs or args.model or args.every_runtime or args.write_docs or args.reference:
        raise UsageError("--table: measures no model, expected neither INPUT nor --model. Leave them out.")
    if args.check is not None and args.check < 3:
        raise UsageError(f"--check: is {args.check}, expected at least 3 networks.")


@contextmanager
def _bar(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    from tqdm import tqdm

    disable = True if quiet else None
    with tqdm(total=total, desc=what, unit="piece", delay=2, disable=disable, leave=False) as bar:

        def step(_: str) -> None:
            bar.update()

        yield step


def _pieces(space: SearchSpace, *, references: bool = False) -> list[NetworkPiece | DecoderPiece]:
    from monai_effsam.nas.cost import space_decoders, space_pieces

    return [*space_decoders(space), *space_pieces(space, references=references)]


def _measure(
    file: Path,
    table: LatencyTable,
    pieces: Sequence[NetworkPiece | DecoderPiece],
    stopwatch: RuntimeStopwatch,
    *,
    quiet: bool,
) -> int:
    from monai_effsam.inference.export.promptable_sam import PromptedDecoderGraph
    from monai_effsam.nas.cost import measure_table

    with _bar("pieces", len(table.missing(pieces)), quiet=quiet) as step:
        return measure_table(
            table, pieces, stopwatch, file, decoder_graph=PromptedDecoderGraph, on_piece=step
        )


def _fit(table: LatencyTable, space: SearchSpace, stopwatch: RuntimeStopwatch, *, quiet: bool) -> None:
    from monai_effsam.nas.cost import fit_table, measure_encoders, sampled

    nets = sampled(space, _FIT_NETS, _FIT_SEED)
    with _bar("fit", len(nets), quiet=quiet) as step:
        fit_table(table, nets, measure_encoders(nets, stopwatch, on_net=step))


def _check(
    args: argparse.Namespace, table: LatencyTable, space: SearchSpace, stopwatch: RuntimeStopwatch
) -> None:
    from monai_effsam.nas.cost import check_table, measure_encoders, sampled

    seen = {one.id for one in sampled(space, _FIT_NETS, _FIT_SEED)}
    drawn: Sequence[Any] = sampled(space, args.check + _FIT_NETS, _CHECK_SEED)
    nets = [one for one in drawn if one.id not in seen][: args.check]
    with _bar("check", len(nets), quiet=args.quiet) as step:
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
