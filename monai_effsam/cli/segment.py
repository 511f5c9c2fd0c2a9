# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Outline the structures in pictures and volumes: a mask and an overlay for each input, and results.jsonl.

No prompt is needed; a box or points correct a single picture. A promptable model (SAM and its relatives, our kd_sam)
outlines what a box or points show. Exit status: 0 all well, 1 some inputs failed, 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.cli.common import add_options
from monai_effsam.cli.model_options import add_model_options, check_model_options, open_segmenter
from monai_effsam.errors import UsageError
from monai_effsam.specs import Prompts

if TYPE_CHECKING:
    from monai_effsam.inference import Outcome, Plan, Segmenter

__all__ = [
    "Reporter",
    "add_arguments",
    "describe",
    "parse_prompts",
    "run",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam segment`."""
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="pictures, volumes, folders, DICOM series folders",
    )
    parser.add_argument(
        "--modality", metavar="NAME", help="of every input; DICOM files may tell theirs, others are looked at"
    )
    parser.add_argument(
        "--target", action="append", default=[], metavar="NAME", help="outline this one only; may be repeated"
    )
    parser.add_argument(
        "--box", metavar="X0,Y0,X1,Y1", help="box around the target, in pixels of the picture"
    )
    parser.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="X,Y[,0|1]",
        help="point inside (1, default) or outside (0) of the target; may be repeated",
    )
    parser.add_argument(
        "--ct-window", default="soft_tissue", metavar="NAME", help="intensity window of CT volumes"
    )
    parser.add_argument(
        "--dicom-seg",
        action="store_true",
        help="for DICOM inputs also write NAME_seg.dcm, a DICOM Segmentation",
    )
    parser.add_argument("--resume", action="store_true", help="do only what an earlier run left undone")
    add_options(parser, "out", "overwrite", "json", required=("out",))
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 all well, 1 some inputs failed, 2 bad usage (raised as `UsageError`), 130 interrupted."""
    from monai_effsam.inference.model_path import told_of
    from monai_effsam.inference.plan import Request, make_plan
    from monai_effsam.inference.runtimes.contract import unprompted

    prompts = parse_prompts(args.box, args.point)
    model = check_model_options(args)
    told = told_of(model)
    if told.promptable and not prompts:
        raise unprompted(model)
    request = Request(
        inputs=tuple(args.inputs),
        out=args.out,
        modality=args.modality,
        targets=tuple(args.target),
        prompts=prompts,
        overwrite=args.overwrite,
        resume=args.resume,
        ct_window=args.ct_window,
        dicom_seg=args.dicom_seg,
    )
    # beside weights of others nothing tells what they are; ours without a description cannot be loaded
    plan = make_plan(request, told.targets, promptable=told.promptable is not False)
    if not plan.jobs:
        print(f"nothing to do: all inputs ({plan.passed}) are finished in {args.out}", file=sys.stderr)
        return 0
    reporter = Reporter(plan, json_lines=args.json, quiet=args.quiet)
    try:
        outcomes = _segment(plan, open_segmenter(args), reporter)
    except KeyboardInterrupt:
        reporter.close()
        print(
            f"stopped; {reporter.finished} of {len(plan.jobs)} inputs are finished in {args.out}",
            file=sys.stderr,
        )
        return 130
    return _exit_status(outcomes)


def parse_prompts(box: str | None, points: Sequence[str]) -> Prompts:
    """`--box X0,Y0,X1,Y1` and `--point X,Y[,0|1]`, taken strictly.

    Raises:
        UsageError: not the right count of numbers, or values that make no prompt.
    """
    corners = None
    if box is not None:
        x0, y0, x1, y1 = _numbers("--box", box, (4,), "X0,Y0,X1,Y1")
        corners = (x0, y0, x1, y1)
    places, labels = [], []
    for point in points:
        values = _numbers("--point", point, (2, 3), "X,Y or X,Y,0 or X,Y,1")
        label = values[2] if len(values) == 3 else 1.0
        if label not in (0.0, 1.0):
            raise UsageError(f"--point: label of '{point}' is {label:g}, expected 1 (inside) or 0 (outside).")
        places.append((values[0], values[1]))
        labels.append(int(label))
    return Prompts(tuple(places), tuple(labels), corners)


class Reporter:
    """Tells how a run goes: results on stdout, a progress bar and failures on stderr.

    Args:
        plan: what is done.
        json_lines: print records instead of sentences.
        quiet: print neither; failures are told all the same.
    """

    def __init__(self, plan: Plan, *, json_lines: bool = False, quiet: bool = False) -> None:
        self.finished = 0
        self._json, self._quiet = json_lines, quiet
        self._total, self._single = len(plan.jobs), len(plan.jobs) == 1
        self._bar: Any = None

    def open(self) -> None:
        """Start the clock of the progress bar, which shows after two seconds and only on a terminal."""
        from tqdm import tqdm

        unit = "slice" if self._single else "image"
        total = None if self._single else self._total
        disable = True if self._quiet else None  # None: only on a terminal
        self._bar = tqdm(total=total, unit=unit, delay=2, disable=disable, leave=False, file=sys.stderr)

    def slices(self, done: int, total: int) -> None:
        """Slices of the image that is in the network."""
        if self._bar is not None and self._single and total > 1:
            self._bar.total = total
            self._bar.update(done - self._bar.n)

    def outcome(self, outcome: Outcome) -> None:
        """One input is done."""
        self.finished += 1
        if self._bar is not None and not self._single:
            self._bar.update(1)
        if outcome.error is not None:
            self._say(f"error: {outcome.error}", sys.stderr)
        if self._json:
            self._say(json.dumps(outcome.record, ensure_ascii=False), sys.stdout)
        elif outcome.error is None and not self._quiet:
            self._say(describe(outcome), sys.stdout)

    def close(self) -> None:
        """Take the progress bar away."""
        if self._bar is not None:
            self._bar.close()

    def _say(self, line: str, stream: Any) -> None:
        if self._bar is None or self._bar.disable:
            print(line, file=stream, flush=True)
        else:
            self._bar.write(line, file=stream)


def describe(outcome: Outcome) -> str:
    """One line about an input that went well."""
    from monai_effsam.inference.results import size_text

    record = outcome.record
    parts = [f"{target['name']} {size_text(target)}" for target in record["targets"] if target["found"]]
    notes = "".join(f" ({note})" for note in record["notes"])
    return (
        f"{record['input']}: {', '.join(parts) or 'nothing here'}, {sum(record['ms'].values()):.0f} ms{notes}"
    )


def _segment(plan: Plan, segmenter: Segmenter, reporter: Reporter) -> list[Outcome]:
    from monai_effsam.inference.run import run_plan

    reporter.open()
    try:
        return run_plan(plan, segmenter, on_outcome=reporter.outcome, on_slices=reporter.slices)
    finally:
        reporter.close()


def _exit_status(outcomes: Sequence[Outcome]) -> int:
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if len(outcomes) > 1 and failed:
        print(f"{len(failed)} of {len(outcomes)} inputs failed", file=sys.stderr)
    if len(outcomes) == 1 and failed and failed[0].is_usage_error:
        return 2
    return 1 if failed else 0


def _numbers(option: str, text: str, counts: Sequence[int], form: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts or not all(math.isfinite(value) for value in values):
        raise UsageError(f"{option}: is '{text}', expected {form} in pixels.")
    return values
