# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Lines of the table of models -> its numbers, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

from monai_effsam.evaluation.models_answers import ModelFound
from monai_effsam.evaluation.models_rows import PromptedScore
from monai_effsam.evaluation.robot import RobotUser
from monai_effsam.metrics.average_precision import FoundObjects, average_precision
from monai_effsam.metrics.statistics import holm, paired_difference, spread_of

__all__ = ["pairs_of", "summarise_models"]

Rows = Sequence[PromptedScore]


def summarise_models(
    rows: Rows,
    models: Sequence[ModelFound],
    users: Mapping[str, RobotUser],
    *,
    times: Mapping[str, Mapping[str, Any]],
    reference: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Every number that the lines give.

    Args:
        rows: of these models and prompts; every model has answered every one.
        models: in the order of the table.
        users: by the name of the prompt.
        times: of each model, what it costs: those of `times_in_turns` and more.
        reference: each other model is compared with it; None for the first.
        seed: of the bootstrap.

    Returns:
        `models`, `sets`, `reference` and, for each prompt, an entry of `prompts`: `models` and `trivial` with
        `sets` (see `Spread`, with quartiles) and `mean_of_sets`, models also with `gain` over what is trivial and
        `precision` by set, see `_precision`, and `pairs`, see `_pair`.
    """
    names = [one.run.model for one in models]
    first = reference or names[0]
    return {
        "models": [one.to_json() | dict(times[one.run.model]) for one in models],
        "reference": first,
        "sets": _set_facts([row for row in rows if row.model == names[0]]),
        "prompts": [
            _prompt(prompt, user, [row for row in rows if row.prompt == prompt], names, first, seed)
            for prompt, user in users.items()
        ],
    }


def pairs_of(names: Sequence[str], reference: str) -> list[tuple[str, str]]:
    """Who is compared with whom: every other model with the reference, and every model with the one before it."""
    wanted = [(name, reference) for name in names if name != reference]
    beside = [(name, before) for before, name in pairwise(names)]
    return wanted + [(a, b) for a, b in beside if (a, b) not in wanted and (b, a) not in wanted]


def _set_facts(rows: Rows) -> dict[str, Any]:
    """What the sets hold; the same for every model."""
    return {
        name: {
            "pictures": len({row.image for row in own}),
            "patients": len({row.group for row in own}),
            "targets": len({row.target for row in own}),
            "scores": len({row.key for row in own}),
        }
        for name, own in _by_set(rows).items()
    }


def _prompt(
    prompt: str, user: RobotUser, rows: Rows, names: Sequence[str], reference: str, seed: int
) -> dict[str, Any]:
    own = {name: [row for row in rows if row.model == name] for name in names}
    boring = [replace(row, dice=row.trivial) for row in own[names[0]] if not np.isnan(row.trivial)]
    trivial = {"sets": _sets(boring, seed)} | _mean_of_sets(_means(boring))
    return {
        "prompt": prompt,
        "start": user.start,
        "jitter": user.jitter,
        "trivial": trivial,
        "models": [{"name": name, **_model(own[name], seed)} for name in names],
        "pairs": _pairs({pair: (own[pair[0]], own[pair[1]]) for pair in pairs_of(names, reference)}, seed),
    }


def _model(rows: Rows, seed: int) -> dict[str, Any]:
    """Scores by set, and what they gain over the trivial answer where there is one."""
    judged = [row for row in rows if not np.isnan(row.trivial)]
    gains = _means([replace(row, dice=row.dice - row.trivial) for row in judged])
    return {
        "sets": _sets(rows, seed),
        **_mean_of_sets(_means(rows)),
        "gain": round(fmean(gains.values()), 4) if gains else None,
        "precision": {name: _precision(own) for name, own in _by_set(rows).items()},
    }


def _precision(rows: Rows) -> dict[str, float]:
    """COCO's AP over the objects of a set, and their mean IoU; an object is a target of a file, its mask the answer.

    As there is one prompt an object, and so one mask, recall and precision differ by the order of `quality` alone.
    """
    found = average_precision(
        [FoundObjects(np.array([row.quality]), np.array([[row.iou]]), row.target) for row in rows]
    )
    values = {"map": found.mean, "ap50": found.at_50, "ap75": found.at_75, "iou": fmean(r.iou for r in rows)}
    return {name: round(value, 4) for name, value in values.items()}


def _means(rows: Rows) -> dict[str, float]:
    return {name: fmean(row.dice for row in own) for name, own in _by_set(rows).items()}


def _mean_of_sets(means: Mapping[str, float]) -> dict[str, float | None]:
    """Each set counts the same, however many pictures it has."""
    return {"mean_of_sets": round(fmean(means.values()), 4) if means else None}


def _sets(rows: Rows, seed: int) -> dict[str, Any]:
    """Spread and quartiles of each set."""
    found = {}
    for name, own in _by_set(rows).items():
        values = [row.dice for row in own]
        spread = spread_of(values, [row.group for row in own], seed=seed)
        assert spread is not None
        marks = np.quantile(values, (0.25, 0.75, 0.9)).tolist()
        more = dict(zip(("lower", "upper", "ninetieth"), (round(m, 4) for m in marks), strict=True))
        found[name] = spread.to_json() | more
    return found


def _pairs(pairs: Mapping[tuple[str, str], tuple[Rows, Rows]], seed: int) -> list[dict[str, Any]]:
    """The paired tests of one prompt.

    Each family is corrected for itself: all pairs over all sets, counted by picture and counted by patient, and all
    pairs in all sets one by one.
    """
    found = [{"first": a, "second": b, **_pair(*rows, seed)} for (a, b), rows in pairs.items()]
    families = (
        [pair["pictures"] for pair in found],
        [pair["patients"] for pair in found],
        [test for pair in found for test in pair["sets"].values()],
    )
    for tests in families:
        for test, corrected in zip(tests, holm([test["p_value"] for test in tests]), strict=True):
            test["p_holm"] = float(f"{corrected:.4g}")
    return found


def _pair(first: Rows, second: Rows, seed: int) -> dict[str, Any]:
    """The first model minus the second, see `PairedDifference`: over all sets by picture and by patient, and by set.

    A picture with several targets counts once, by the mean of their differences.
    """
    others = {row.key: row.dice for row in second}
    own = [row for row in first if row.key in others]

    def compared(rows: Rows, groups: Iterable[tuple[str, str]]) -> dict[str, float | int]:
        values = [others[row.key] for row in rows]
        return paired_difference([row.dice for row in rows], values, list(groups), seed=seed).to_json()

    return {
        "pictures": compared(own, ((row.set_name, row.image) for row in own)),
        "patients": compared(own, ((row.set_name, row.group) for row in own)),
        "sets": {
            name: compared(rows, ((name, row.image) for row in rows)) for name, rows in _by_set(own).items()
        },
    }


def _by_set(rows: Iterable[PromptedScore]) -> dict[str, list[PromptedScore]]:
    sets: dict[str, list[PromptedScore]] = {}
    for row in rows:
        sets.setdefault(row.set_name, []).append(row)
    return sets
