# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The comparison as a page of the documentation: command, rules, pictures, tables."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from monai_effsam.data.io import write_bytes
from monai_effsam.evaluation.machine import machine_facts
from monai_effsam.reports.curves import CurvePanel, CurvePoint, DotPanel, curve_picture, dot_picture
from monai_effsam.studies.tic.growth import GROWING, GrowthRow
from monai_effsam.studies.tic.nets import ABLATION, CONVOLUTION, FINE_TIC, PATCH, STUDY_NETS, TIC, VIT
from monai_effsam.studies.tic.runs import StudyPlan, StudyRow
from monai_effsam.studies.tic.tables import (
    difference_table,
    growth_table,
    score_table_of,
    transfer_table,
    values,
    verdict_table,
    whole_seeds,
)
from monai_effsam.studies.tic.tasks import TASKS

__all__ = ["study_page", "write_study"]

_NETS = f"""\
All networks have equal parameters within 3 %, and equal training: the same views in the same order, AdamW, a rate of
{{rate:g}} after a warm-up over a tenth of the steps, then half a cosine, weight decay {{weight_decay:g}}, label
smoothing {{smoothing:g}}; {{batch}} views of {{side}} px a step, classes in equal shares; the last weights are tested,
nothing is chosen on `val`. None has seen other pictures before. "{ABLATION[0]}" is TiC's trunk with neither shift nor
inter-pooling; "{TIC}" has both. "{CONVOLUTION}" is the same trunk with a 3 x 3 convolution of the same dilation and
stride in the place of each MSA-Conv. "{VIT}" is timm's, patches of {PATCH} px (the grid of TiC's third stage), the
mean of its tokens to the classes, its table of positions resized bicubically for other sizes. One set of options for
all: none was tuned for any network. "{FINE_TIC}" is TiC with its last map at stride 16 instead of 32, of as many
parameters: a trial, added after the first results. TiC's architecture is a reconstruction: only the operator is
published."""

_TASKS = {
    "breast": "Breast ultrasound (BUSI without repeats): normal, benign or malignant; split as given.",
    "modality": "Modality: seven classes, all sets; of volumes the middle slice.",
    "modality-zoom": "The same task, but for the views of the training, which show 8 % of a picture or more rather"
    " than a half: things come up to 3.5 times larger, not 1.4 times, as is usual for classifiers of photographs.",
}

_TRANSFER = """\
The same networks tested on the same pictures at other sizes, without any further training. Above: accuracy; below:
accuracy at {side} px less that at the size, in points, so a figure below 0 is a gain. Last: by how much the other
network loses more than TiC, of the same seed, with Student's 95 % interval."""

_GROWTH = f"""\
One image, one thread, single precision, in turns, in the processor's time; memory is the peak of a process of its own
above what it held before the call. "{GROWING[2]}" uses torch's memory-efficient attention,
"{GROWING[3]}" keeps the matrix of weights, {{heads}} heads of it. Exponents are slopes of the logarithms by least
squares over all sizes shown, against the area: 1 is linear, 2 quadratic."""


def write_study(
    page: Path,
    rows: Sequence[StudyRow],
    growth: Sequence[GrowthRow],
    plan: StudyPlan,
    arguments: Sequence[str],
    notes: Path | None = None,
) -> None:
    """Write a Markdown page, and its pictures beside it.

    Args:
        page: file to write.
        rows: of the comparison; only whole seeds are told.
        growth: time and memory by size.
        plan: of the comparison.
        arguments: of the command that made them; those about the page itself are not told.
        notes: Markdown that the page says besides.
    """
    tasks = [task for task in TASKS if whole_seeds(rows, task)]
    own = {task: whole_seeds(rows, task) for task in tasks}
    trials = {task: found for task in tasks if (found := whole_seeds(rows, task, extra=True))}
    names = {}
    if own:
        names["nets"] = dot_picture(
            [DotPanel(f"{t}: accuracy at {plan.side} px", _dots(own[t], plan.side)) for t in tasks],
            "accuracy of each network, a dot a seed",
        )
        names["sizes"] = curve_picture(
            [CurvePanel(f"{t}: accuracy", "tested at [px]", _curves(own[t])) for t in tasks],
            "accuracy against the size of the image",
        )
    if growth:
        names["growth"] = curve_picture(
            [
                CurvePanel("time [ms]", "image side [px]", _growth(growth, "milliseconds"), log=True),
                CurvePanel("memory [MiB]", "image side [px]", _growth(growth, "mebibytes"), log=True),
            ],
            "time and memory against the size of the image",
        )
    for ending, svg in names.items():
        write_bytes(page.with_name(f"{page.stem}_{ending}.svg"), svg.encode())
    text = study_page(own, trials, growth, plan, _command(arguments), page.stem, notes)
    write_bytes(page, text.encode())


def study_page(
    own: dict[str, list[StudyRow]],
    trials: dict[str, list[StudyRow]],
    growth: Sequence[GrowthRow],
    plan: StudyPlan,
    command: str,
    stem: str,
    notes: Path | None = None,
) -> str:
    """The page as Markdown; `own` and `trials` have rows of whole seeds by task, `stem` begins the pictures' names."""
    facts = machine_facts(1)
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("monai_effsam", "torch", "timm"))
    options = {name: getattr(plan, name) for name in ("rate", "weight_decay", "smoothing", "batch", "side")}
    parts = [
        "# What TiC's parts are worth",
        f"Made by `{command}`; not edited. {facts['machine']}, one thread. {versions}.",
        *([notes.read_text(encoding="utf-8").strip()] if notes else []),
        "## How it was measured",
        _NETS.format(**options),
    ]
    if own:
        parts += ["## The parts", f"![Accuracy of each network]({stem}_nets.svg)"]
    for task, rows in own.items():
        parts += [
            f"### {task}",
            (
                f"{_TASKS[task]} {_tested(plan.most.get(task))} {plan.steps[task]:,} steps, {_seeds(rows)}; mean and"
                " standard deviation over them."
            ),
            score_table_of(rows, plan.side),
            "Differences of the same seed, with Student's 95 % interval of their mean.",
            difference_table(rows, plan.side),
        ]
    if own:
        parts += [
            "## Other sizes",
            _TRANSFER.format(side=plan.side),
            f"![Accuracy by size]({stem}_sizes.svg)",
        ]
    for task, rows in own.items():
        parts += [
            f"### {task}, trained at {plan.side} px",
            transfer_table(rows, plan.sides, plan.side),
            verdict_table(rows, plan.sides, plan.side),
            "The same in balanced accuracy:",
            verdict_table(rows, plan.sides, plan.side, "balanced"),
        ]
    for task, rows in trials.items():
        parts += [
            f"### {task}, trained at {plan.side} px: a trial besides, {_seeds(rows)}",
            transfer_table(rows, plan.sides, plan.side),
            verdict_table(rows, plan.sides, plan.side),
        ]
    if growth:
        parts += [
            "## Time and memory",
            _GROWTH.format(heads=4),
            f"![Time and memory by size]({stem}_growth.svg)",
            growth_table(growth),
        ]
    return "\n\n".join(parts) + "\n"


def _command(arguments: Sequence[str]) -> str:
    own = list(arguments)
    for option in ("--write-docs", "--notes"):
        if option in own:
            del own[own.index(option) : own.index(option) + 2]
    if "--seeds" in own and own[own.index("--seeds") + 1] == "0":  # only the page is written anew
        del own[own.index("--seeds") : own.index("--seeds") + 2]
        own = [word for word in own if word != "--grow"]
    return shlex.join(["python", "-m", "monai_effsam.studies.tic", *own])


def _tested(most: int | None) -> str:
    return f"Tested on {f'at most {most} pictures a class' if most else 'all pictures'} of `val`."


def _seeds(rows: Sequence[StudyRow]) -> str:
    count = len({row.seed for row in rows})
    return f"{count} seed{'s' if count > 1 else ''}"


def _dots(rows: Sequence[StudyRow], side: int) -> dict[str, list[float]]:
    return {net: found for net in STUDY_NETS if (found := values(rows, net, side))}


def _curves(rows: Sequence[StudyRow]) -> dict[str, list[CurvePoint]]:
    """Mean, and a standard deviation to both sides."""
    found: dict[str, list[CurvePoint]] = {}
    for net in (n for n in (TIC, CONVOLUTION, VIT, FINE_TIC) if any(row.net == n for row in rows)):
        for side in sorted({row.side for row in rows}):
            one = values(rows, net, side)
            mean, sd = fmean(one), stdev(one) if len(one) > 1 else 0.0
            found.setdefault(net, []).append(CurvePoint(side, mean, mean - sd, mean + sd))
    return found


def _growth(rows: Sequence[GrowthRow], field: str) -> dict[str, list[CurvePoint]]:
    found: dict[str, list[CurvePoint]] = {}
    for net in GROWING:
        for row in sorted((r for r in rows if r.net == net), key=lambda r: r.side):
            value = getattr(row, field)
            if value:
                found.setdefault(net, []).append(CurvePoint(row.side, value, value, value))
    return found
