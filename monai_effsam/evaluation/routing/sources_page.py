# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The router on sources that no training set is from: numbers, and a section of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_effsam.data.routing.clones import SourcePictures
from monai_effsam.evaluation.routing.answers import RouterAnswers, answers_of
from monai_effsam.inference.router import ModalityRouter
from monai_effsam.reports.table_form import markdown_table

__all__ = ["SourcesJudgement", "confusion_table", "judge_sources", "sources_json", "sources_section"]

_TEXT = """\
## Other archives, hospitals and devices

Pictures of sources that nothing in training is from, of public repositories; nothing of them is in this package. The
list, `monai_effsam/evaluation/routing/source_table.py`, was fixed before any router was judged on it. A large source
gives {most} pictures at most, evenly spread over its files. Every picture was compared with all training pictures by a
256-bit perceptual hash: the least distance is 50 (34 with turns and mirrors, of an MR and a CT; the nearest two dozen
were looked at, none is the same), where equal pictures give less than 24. Mammograms and angiograms are left out: DICOM
names them modalities of their own. Terms are as the repository or the data set states them. Of each source sixteen
pictures were looked at. The column "part in training" goes by all sources that a router may be trained on; it changes
no figure but the two that it divides.

Each is got by `git clone --depth 1 https://github.com/OWNER/NAME DIR/OWNER+NAME` (about 1.5 GiB together); the links
below lead to the commits that were looked at. The command prints this line for each clone that is missing in `DIR`, and
the lines that bring the commit where a clone is of another one."""


_TITLES = (
    "source", "modality", "shows", "part in training", "terms", "pictures", "likeliest is right", "answer is right",
    "unknown",
)  # fmt: skip


@dataclass(frozen=True)
class SourcesJudgement:
    """A router's answers to such sources.

    Args:
        answers: to all their pictures, foreign ones among them.
        read: what was read, a source each.
    """

    answers: RouterAnswers
    read: tuple[SourcePictures, ...]


def judge_sources(router: ModalityRouter, read: Sequence[SourcePictures]) -> SourcesJudgement:
    """Ask a router for every picture of the sources.

    Raises:
        DataError: there are none.
    """
    return SourcesJudgement(answers_of(router, [p for each in read for p in each.pictures]), tuple(read))


def sources_json(judged: SourcesJudgement) -> dict[str, Any]:
    """The numbers: balanced accuracy by pictures and by sources, and what became of foreign pictures."""
    answers = judged.answers
    unknown = len(answers.modalities)
    foreign = answers.truth == unknown
    return {
        "balanced_accuracy": round(answers.balanced_accuracy(0), 4),
        "balanced_accuracy_with_unknown": round(answers.balanced_accuracy(), 4),
        "mean_over_sources": _over_sources(judged, 0),
        "mean_over_sources_with_unknown": _over_sources(judged, None),
        "same_part": _of_part(judged, same=True),
        "other_part": _of_part(judged, same=False),
        "foreign_unknown": [int((answers.named()[foreign] == unknown).sum()), int(foreign.sum())],
        "calibration_error": round(answers.calibration_error(), 4),
        "pictures": len(answers.truth),
        "broken": sum(len(each.broken) for each in judged.read),
        "sources": {
            name: {"likeliest": likeliest, "answer": answers.by_source()[name][0], "pictures": count}
            for name, (likeliest, count) in answers.by_source(0).items()
        },
    }


def sources_section(judged: SourcesJudgement) -> str:
    """Heading, confusion matrix and a row a source, as Markdown."""
    told = sources_json(judged)
    parts = [
        _TEXT.format(most=max(len(each.pictures) for each in judged.read)),
        _summary(told),
        confusion_table(judged.answers),
        markdown_table(
            _TITLES,
            [_row(judged.answers, each) for each in judged.read if each.pictures],
            "lllllrrrr",
        ),
    ]
    return "\n\n".join(parts)


def confusion_table(answers: RouterAnswers) -> str:
    """A row a truth, a column an answer, as shipped; nothing where no picture is."""
    table = answers.confusion()
    names = (*answers.modalities, "unknown")
    rows = [
        (name if name != "unknown" else "foreign", *(str(count) if count else "" for count in row))
        for name, row in zip(names, table.tolist(), strict=True)
        if sum(row)
    ]
    return markdown_table(("", *names), rows)


def _summary(told: Mapping[str, Any]) -> str:
    right, count = told["foreign_unknown"]
    return (
        f"Balanced accuracy {_percent(told['balanced_accuracy'])}, "
        f'{_percent(told["balanced_accuracy_with_unknown"])} where "unknown" counts as wrong; mean over the sources '
        f"{_percent(told['mean_over_sources'])} and {_percent(told['mean_over_sources_with_unknown'])}. Of parts of "
        f"the body that training shows by the same modality {_percent(told['same_part'])}, of others "
        f"{_percent(told['other_part'])} of the pictures have the right modality as their likeliest. Foreign "
        f'pictures answered "unknown": {right} of {count}. Files that could not be read: {told["broken"]}.'
    )


def _row(answers: RouterAnswers, each: SourcePictures) -> tuple[str, ...]:
    source = each.source
    own = np.array([name == source.name for name in answers.sources])
    unknown, truth, count = len(answers.modalities), answers.truth[own], int(own.sum())
    likeliest, shipped = answers.named(0)[own], answers.named()[own]
    return (
        f"[{source.name}]({source.address}/tree/{source.commit})",
        source.modality or "foreign",
        source.shows,
        ("yes" if source.same_part else "no") if source.modality else "",
        source.terms,
        str(count),
        _percent(float((likeliest == truth).mean())) if source.modality else "",
        _percent(float((shipped == truth).mean())),
        str(int((shipped == unknown).sum())),
    )


def _over_sources(judged: SourcesJudgement, threshold: float | None) -> float | None:
    """Mean over the sources of known modalities of the share that is right; None where there are none."""
    found = judged.answers.by_source(threshold)
    known = [found[s.source.name] for s in judged.read if s.source.modality and s.pictures]
    return round(float(np.mean([right / count for right, count in known])), 4) if known else None


def _of_part(judged: SourcesJudgement, *, same: bool) -> float | None:
    """Share of pictures whose likeliest modality is right, of sources whose part of the body is trained on or not."""
    found = judged.answers.by_source(0)
    known = [
        found[each.source.name]
        for each in judged.read
        if each.source.modality and each.pictures and each.source.same_part is same
    ]
    return round(sum(right for right, _ in known) / sum(count for _, count in known), 4) if known else None


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.1f} %"
