# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Print where the time of a picture goes, a stage a line: start, model, reading, network, masks, writing.

Stages are timed one after the other, medians over all pictures and rounds after one that warms up; a folder run of
`effsam segment` overlaps them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.cli.common import add_options, print_json
from monai_effsam.cli.model_options import add_model_options, check_model_options, open_segmenter
from monai_effsam.errors import UsageError

if TYPE_CHECKING:
    from monai_effsam.inference.segmenter import Segmenter

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam profile`."""
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="pictures, volumes, folders")
    parser.add_argument("--modality", required=True, metavar="NAME", help="of every input")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="passes over all inputs that count (default: 5)"
    )
    parser.add_argument(
        "--reference",
        action="store_true",
        help="also time LiteMedSAM's image encoder (random weights), turn by turn with the network",
    )
    add_model_options(parser)
    add_options(parser, "json")


def run(args: argparse.Namespace) -> int:
    """Exit status 0; whatever fails is raised."""
    if args.rounds < 1:
        raise UsageError(f"--rounds: is {args.rounds}, expected at least 1.")
    check_model_options(args)
    from monai_effsam.data.io import find_inputs

    sources = find_inputs(args.inputs)
    start = time.perf_counter()
    segmenter = open_segmenter(args)
    opened = (time.perf_counter() - start) * 1000
    from monai_effsam.inference.profiling import medians, profile_pictures

    times = profile_pictures(segmenter, sources, args.modality, rounds=args.rounds)
    report = _report(segmenter, medians(times), opened, pictures=len(sources), rounds=args.rounds)
    if args.reference:
        from monai_effsam.inference.reference import compare_with_lite_medsam

        report["reference"] = compare_with_lite_medsam(segmenter, args.modality, rounds=args.rounds)
    if args.json:
        print_json(report)
    else:
        print(_text(report))
    return 0


def _report(
    segmenter: Segmenter, stages: dict[str, float], opened: float, *, pictures: int, rounds: int
) -> dict[str, Any]:
    from monai_effsam.inference.runtimes.machine import peak_memory_mb

    runtime = segmenter.runtime
    return {
        "runtime": runtime.name,
        "device": runtime.device,
        "threads": runtime.threads,
        "pictures": pictures,
        "rounds": rounds,
        "open_ms": round(opened, 1),
        "stages_ms": {name: round(value, 2) for name, value in stages.items()},
        "cpu_seconds": round(time.process_time(), 2),
        "peak_mb": round(peak_memory_mb() or 0) or None,
    }


def _text(report: dict[str, Any]) -> str:
    stages = dict(report["stages_ms"])
    total = stages.pop("total")
    runtime = f"{report['runtime']} on {report['device']}, {report['threads']} threads"
    lines = [
        f"{runtime}, {report['pictures']} pictures, {report['rounds']} rounds, medians",
        f"{'open':<10}{report['open_ms']:>9.1f} ms   once",
    ]
    lines += [f"{name:<10}{ms:>9.1f} ms {ms / total:>6.0%}" for name, ms in stages.items()]
    lines += [f"{'total':<10}{total:>9.1f} ms   a picture"]
    if against := report.get("reference"):
        theirs = f"LiteMedSAM's encoder alone {against['reference_ms']:.0f} ms"
        lines += [
            f"network {against['network_ms']:.1f} ms, {theirs}: {against['ratio']:.1f} times faster, turn by turn"
        ]
    lines += [f"whole process: {report['cpu_seconds']} s of CPU, {report['peak_mb']} MB at most"]
    return "\n".join(lines)
