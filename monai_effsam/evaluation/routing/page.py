# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The page of a modality router: what it must show, and what is behind each number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_effsam.evaluation.routing.answers import RouterAnswers, kept_share
from monai_effsam.evaluation.routing.sources_page import SourcesJudgement, sources_json, sources_section
from monai_effsam.reports.confusion_chart import confusion_chart
from monai_effsam.reports.table_form import markdown_table

__all__ = ["RouterJudgement", "judgement_json", "routing_charts", "routing_page"]

_RECALL = 0.99
_VAL_CHART, _ELSEWHERE_CHART = "modality_router_val.svg", "modality_router_elsewhere.svg"

_ON_VAL = """\
## Validation pictures

A row a truth, a column an answer, as shipped; validation pictures are never trained on. Slices of volumes count
one by one."""
_ON_OTHERS = """\
## Sources left out of training

Routers trained without the sources named, each for as long as it says, and judged on every picture of these and on the
two fundus photographs that ship with scikit-image. Endoscopy has one source here (Kvasir-SEG), so nothing can
be said of another; dermoscopy has two kinds of copy of one archive."""
_ON_FOREIGN = """\
## Foreign pictures

Drawings of kinds, and photographs, that the router never saw; its own drawings and photographs are others. Each
cell: answered unknown / pictures."""


@dataclass(frozen=True)
class RouterJudgement:
    """Everything that was measured of a router.

    Args:
        val: answers to the validation pictures.
        folds: by name, answers of routers to sources that they were not trained on.
        left_out: by the same names, those sources.
        trained: by the same names, and under "" for the router itself, how long it was trained.
        foreign: answers to foreign pictures.
        milliseconds: (network, all) of one picture.
        parameters: of the network.
        runtime: that was timed, on one core.
        machine: what `machine_facts` says.
        command: that made this.
        elsewhere: answers to sources that no training set is from.
    """

    val: RouterAnswers
    folds: Mapping[str, RouterAnswers]
    left_out: Mapping[str, Sequence[str]]
    trained: Mapping[str, str]
    foreign: RouterAnswers
    milliseconds: tuple[float, float]
    parameters: int
    runtime: str
    machine: Mapping[str, Any]
    command: str
    elsewhere: SourcesJudgement | None = None


def judgement_json(judged: RouterJudgement) -> dict[str, Any]:
    """The numbers of the page."""
    limit = judged.val.recall_threshold(_RECALL)
    known = judged.val.named() < len(judged.val.modalities)
    kept, own = kept_share(judged.foreign, limit), kept_share(judged.foreign, judged.val.threshold)
    together = None
    for answers in judged.folds.values():
        together = answers if together is None else together + answers
    return {
        "balanced_accuracy_val": round(judged.val.balanced_accuracy(0), 4),
        "balanced_accuracy_val_with_unknown": round(judged.val.balanced_accuracy(), 4),
        "balanced_accuracy_other_sources": together and round(together.balanced_accuracy(0), 4),
        "balanced_accuracy_other_sources_with_unknown": together and round(together.balanced_accuracy(), 4),
        "elsewhere": judged.elsewhere and sources_json(judged.elsewhere),
        "folds": {name: round(a.balanced_accuracy(0), 4) for name, a in judged.folds.items()},
        "foreign_unknown_at_99_recall": round(kept["all"][0] / kept["all"][1], 4),
        "foreign_unknown_as_shipped": round(own["all"][0] / own["all"][1], 4),
        "recall_val_as_shipped": round(float(known.mean()), 4),
        "calibration_error_val": round(judged.val.calibration_error(), 4),
        "calibration_error_val_and_foreign": round((judged.val + judged.foreign).calibration_error(), 4),
        "milliseconds": [round(value, 2) for value in judged.milliseconds],
        "parameters": judged.parameters,
        "machine": dict(judged.machine),
    }


def routing_charts(judged: RouterJudgement) -> dict[str, str]:
    """Confusion matrices as SVG files that stand alone, by the names that the page links."""
    shown = {_VAL_CHART: ("Validation pictures, as shipped", judged.val)}
    if judged.elsewhere:
        shown[_ELSEWHERE_CHART] = (
            "Other archives, hospitals and devices, as shipped",
            judged.elsewhere.answers,
        )
    return {
        name: confusion_chart(answers.confusion().tolist(), (*answers.modalities, "unknown"), title)
        for name, (title, answers) in shown.items()
    }


def routing_page(judged: RouterJudgement) -> str:
    """The page as Markdown."""
    told = judgement_json(judged)
    parts = [
        "# The modality router",
        f"Made by\n\n    {judged.command}\n",
        _must_show(told, judged.runtime),
        f"How it was trained: {judged.trained['']}.",
        _ON_VAL,
        f"![Confusion matrix of the validation pictures]({_VAL_CHART})",
        _confusion(judged.val),
        _sources(judged.val),
        *(
            [sources_section(judged.elsewhere), f"![Confusion matrix of other sources]({_ELSEWHERE_CHART})"]
            if judged.elsewhere
            else []
        ),
        *([_ON_OTHERS] if judged.folds else []),
    ]
    for name, answers in judged.folds.items():
        parts += [
            f"### {name}: without {', '.join(judged.left_out[name])}",
            f"How it was trained: {judged.trained[name]}.",
            _confusion(answers),
            _sources(answers),
        ]
    parts += [
        _ON_FOREIGN,
        _foreign(judged),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in judged.machine["versions"].items())
    parts.append(f"{judged.machine['machine']}, one thread; {versions}.")
    return "\n\n".join(parts) + "\n"


def _must_show(told: Mapping[str, Any], runtime: str) -> str:
    other, other_unknown = (told[f"balanced_accuracy_other_sources{end}"] for end in ("", "_with_unknown"))
    elsewhere = told["elsewhere"] or {}
    rows = [
        ("balanced accuracy on val", "at least 99 %", _percent(told["balanced_accuracy_val"]),
         f"{_percent(told['balanced_accuracy_val_with_unknown'])} where \"unknown\" counts as wrong"),
        ("balanced accuracy on other archives, hospitals and devices", "at least 95 %",
         _percent(elsewhere.get("balanced_accuracy")),
         f"{_percent(elsewhere.get('balanced_accuracy_with_unknown'))} where \"unknown\" counts as wrong"),
        *([("the same of routers trained without some sources, on these", "at least 95 %", _percent(other),
            f"{_percent(other_unknown)} where \"unknown\" counts as wrong")] if other is not None else []),
        ("foreign pictures answered \"unknown\" at 99 % recall of known ones", "at least 90 %",
         _percent(told["foreign_unknown_at_99_recall"]),
         f"as shipped {_percent(told['foreign_unknown_as_shipped'])} at {_percent(told['recall_val_as_shipped'])}"),
        ("expected calibration error", "reported", f"{told['calibration_error_val']:.4f}",
         f"{told['calibration_error_val_and_foreign']:.4f} with the foreign pictures"),
        (f"one picture on one core, {runtime}", "at most 10 ms", f"{told['milliseconds'][0]:.1f} ms",
         f"{told['milliseconds'][1]:.1f} ms from 512 x 512 pixels"),
        ("parameters", "at most 1.5 million", f"{told['parameters'] / 1e6:.2f} million", ""),
    ]  # fmt: skip
    return markdown_table(("", "target", "measured", ""), rows, "llrl")


def _confusion(answers: RouterAnswers) -> str:
    table = answers.confusion()
    names = (*answers.modalities, "unknown")
    rows = [
        (name, *(str(count) if count else "" for count in row))
        for name, row in zip(names, table.tolist(), strict=True)
        if sum(row)
    ]
    return markdown_table(("", *names), rows)


def _sources(answers: RouterAnswers) -> str:
    likeliest, shipped = answers.by_source(0), answers.by_source()
    rows = [
        (source, str(count), _percent(right / count), _percent(shipped[source][0] / count))
        for source, (right, count) in sorted(likeliest.items())
    ]
    return markdown_table(("source", "pictures", "likeliest is right", "answer is right"), rows)


def _foreign(judged: RouterJudgement) -> str:
    at_recall = kept_share(judged.foreign, judged.val.recall_threshold(_RECALL))
    shipped = kept_share(judged.foreign, judged.val.threshold)
    rows = [
        (kind, *(f"{right}/{count}" for right, count in (at_recall[kind], shipped[kind])))
        for kind in at_recall
    ]
    return markdown_table(("kind", "at 99 % recall", "as shipped"), rows)


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.1f} %"
