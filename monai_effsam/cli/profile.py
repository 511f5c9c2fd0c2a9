# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Print where the time of a picture goes, a stage a line: start, model, reading, network, masks, writing.

Stages are timed one after the other, medians over all pictures and rounds after one that warms up; a folder run of
`effsam segment` overlaps them. A promptable model gets --box, or a box around the middle half of each picture.
With --table it measures what a search needs to know of this machine instead; see `profile_table`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.cli.common import add_options, parse_batches, print_json
from monai_effsam.cli.model_options import add_model_options, check_model_options, open_segmenter
from monai_effsam.cli.profile_table import add_table_options, profile_table
from monai_effsam.cli.segment import parse_prompts
from monai_effsam.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monai_effsam.inference.segmenter import Segmenter
    from monai_effsam.specs import Prompts

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam profile`."""
    parser.add_argument("inputs", nargs="*", type=Path, metavar="INPUT", help="pictures, volumes, folders")
    parser.add_argument("--modality", metavar="NAME", help="of every input; a promptable model does without")
    parser.add_argument(
        "--box", metavar="X0,Y0,X1,Y1", help="box that is prompted, in pixels of each picture"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="passes over all inputs that count (default: 5)"
    )
    parser.add_argument(
        "--batches",
        metavar="N,N",
        help="also how many pictures a second the encoder takes, N at once, as in 1,16",
    )
    parser.add_argument(
        "--reference",
        action="store_true",
        help="also time LiteMedSAM (random weights), turn by turn with the network",
    )
    parser.add_argument(
        "--every-runtime",
        action="store_true",
        help="export the model and profile it in torch, ONNX Runtime and OpenVINO, as one table",
    )
    parser.add_argument(
        "--write-docs", type=Path, metavar="FILE.md", help="with --every-runtime: also write the table here"
    )
    add_model_options(parser)
    add_options(parser, "json")
    add_table_options(parser)


def run(args: argparse.Namespace) -> int:
    """Exit status 0; whatever fails is raised."""
    from monai_effsam.inference.model_path import told_of

    if args.rounds < 1:
        raise UsageError(f"--rounds: is {args.rounds}, expected at least 1.")
    if args.table is not None:
        return profile_table(args)
    if not args.inputs:
        raise UsageError(
            "INPUT is missing, expected pictures, volumes or folders. Name some, or give --table."
        )
    if args.space or args.references or args.check is not None or args.clock:
        raise UsageError("--space, --references, --check and --clock: need a table. Give --table FILE.")
    model = check_model_options(args)
    batches = parse_batches(args.batches)
    prompts = parse_prompts(args.box, ())
    if args.modality is None and told_of(model).promptable is False:
        raise UsageError("--modality: is missing, expected that of every input. Give --modality.")
    if args.every_runtime:
        return _every_runtime(args, model)
    if args.write_docs:
        raise UsageError("--write-docs: one runtime makes no table. Add --every-runtime.")
    report = _measured(args, batches, prompts)
    if args.json:
        print_json(report)
    else:
        print(_text(report))
    return 0


def _measured(args: argparse.Namespace, batches: Sequence[int], prompts: Prompts) -> dict[str, Any]:
    """What one runtime takes for the inputs, and for what else is asked for."""
    from monai_effsam.data.io import find_inputs

    sources = find_inputs(args.inputs)
    start = time.perf_counter()
    segmenter = open_segmenter(args)
    opened = (time.perf_counter() - start) * 1000
    from monai_effsam.inference.profiling import medians, profile_pictures

    times = profile_pictures(segmenter, sources, args.modality, prompts=prompts or None, rounds=args.rounds)
    report = _report(segmenter, medians(times), opened, pictures=len(sources), rounds=args.rounds)
    if batches:
        from monai_effsam.inference.throughput import encoder_rates

        report["images_s"] = encoder_rates({"": segmenter.runtime}, batches, rounds=args.rounds)[""]
    if args.reference:
        from monai_effsam.inference.reference import compare_with_lite_medsam

        report["reference"] = compare_with_lite_medsam(segmenter, args.modality, rounds=args.rounds)
    return report


def _every_runtime(args: argparse.Namespace, model: Path) -> int:
    from monai_effsam.cli.profile_runtimes import profile_runtimes, runtimes_page
    from monai_effsam.data.io import write_bytes
    from monai_effsam.evaluation.outputs import told_path
    from monai_effsam.inference.runtimes.exported import is_exported

    if args.runtime or is_exported(model):
        raise UsageError(
            "--every-runtime: exports the model itself. Give no --runtime, and no exported model."
        )
    given = {"--modality": args.modality, "--box": args.box, "--batches": args.batches}
    options = [word for name, value in given.items() if value for word in (name, value)]
    found = profile_runtimes(
        model, args.inputs, options, family=args.family, threads=args.threads, rounds=args.rounds
    )
    named = ["--model", told_path(args.model, "MODEL")] if args.model else []
    words = ["effsam profile INPUT", *named, *options, "--every-runtime", "--rounds", str(args.rounds)]
    words += ["--threads", str(args.threads)] if args.threads else []
    page = runtimes_page(found, " ".join(words), args.model.name if args.model else "the shipped model")
    if args.write_docs:
        write_bytes(args.write_docs, page.encode())
    if args.json:
        print_json(found)
    elif not args.quiet:
        print(page)
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
    from monai_effsam.cli.profile_runtimes import AGAINST

    stages = dict(report["stages_ms"])
    total = stages.pop("total")
    runtime = f"{report['runtime']} on {report['device']}, {report['threads']} threads"
    lines = [
        f"{runtime}, {report['pictures']} pictures, {report['rounds']} rounds, medians",
        f"{'open':<10}{report['open_ms']:>9.1f} ms   once",
    ]
    lines += [f"{name:<10}{ms:>9.1f} ms {ms / total:>6.0%}" for name, ms in stages.items()]
    lines += [f"{'total':<10}{total:>9.1f} ms   a picture"]
    lines += [
        f"encoder, {size} at once: {rate:.1f} pictures a second"
        for size, rate in report.get("images_s", {}).items()
    ]
    if against := report.get("reference"):
        lines += ["beside LiteMedSAM, turn by turn"]
        lines += [f"{name:<48}{form.format(against[key]):>8}" for key, name, form in AGAINST]
    lines += [f"whole process: {report['cpu_seconds']} s of CPU, {report['peak_mb']} MB at most"]
    return "\n".join(lines)
