# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Judge a modality router: all that the page tells, in one go."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_effsam.data.io import write_bytes
from monai_effsam.data.routing.clones import read_sources
from monai_effsam.data.routing.pictures import case_pictures
from monai_effsam.data.sets import read_sets
from monai_effsam.evaluation.machine import machine_facts
from monai_effsam.evaluation.routing.answers import (
    answers_of,
    foreign_pictures,
    judged_sources,
    router_milliseconds,
)
from monai_effsam.evaluation.routing.page import RouterJudgement, judgement_json, routing_charts, routing_page
from monai_effsam.evaluation.routing.source_table import SOURCES
from monai_effsam.evaluation.routing.sources_page import judge_sources
from monai_effsam.inference.router import ModalityRouter

__all__ = ["COMMAND", "judge_router", "write_judgement"]

log = logging.getLogger(__name__)

COMMAND = "python -m monai_effsam.evaluation.routing"


def judge_router(
    data: Path, router: Path | None, folds: Sequence[Path], sources: Path | None = None
) -> RouterJudgement:
    """Measure a router.

    Args:
        data: folder of sets with `targets.csv`.
        router: bundle or run folder; None for the one that ships.
        folds: run folders of routers that were trained without some sources.
        sources: folder of clones, see `data.routing.clones`.

    Raises:
        DataError: a set cannot be read, or no source is cloned.
        WeightsError: a router cannot be opened.
    """
    shipped = ModalityRouter.open(router)
    cases = read_sets(data)
    read = {case.image: list(case_pictures(case)) for case in cases}
    log.info("%d cases, %d pictures", len(cases), sum(map(len, read.values())))
    val = answers_of(shipped, [p for case in cases if case.split == "val" for p in read[case.image]])
    elsewhere = judge_sources(shipped, read_sources(sources, SOURCES)) if sources else None
    others = {f"Fold {number}": ModalityRouter.open(path) for number, path in enumerate(folds, 1)}
    return RouterJudgement(
        val=val,
        folds={name: judged_sources(other, cases, read) for name, other in others.items()},
        left_out={name: other.card["recipe"]["left_out"] for name, other in others.items()},
        trained={name: _trained(other.card) for name, other in {"": shipped, **others}.items()},
        foreign=answers_of(shipped, foreign_pictures()),
        milliseconds=router_milliseconds(shipped),
        parameters=int(shipped.card.get("parameters", 0)),
        runtime=shipped.runtime,
        machine=machine_facts(1),
        command=" ".join(
            [
                *(COMMAND, "DATA", *("--fold RUN" for _ in folds)),
                *(["--sources DIR"] if sources else []),
                *("-o", "OUT", "--write-docs", "FILE.md"),
            ]
        ),
        elsewhere=elsewhere,
    )


def _trained(card: Mapping[str, Any]) -> str:
    """How long a router was trained, as its card tells."""
    recipe = card.get("recipe", {})
    if "epochs" not in recipe:
        return "an unknown time"
    steps = recipe["epochs"] * recipe["epoch_length"]
    gentle = round(steps * recipe.get("gentle_share", 0))
    start = f", from the weights {recipe['init'][:12]} of an earlier run" if recipe.get("init") else ""
    teacher = f", with the teacher {recipe['teacher']}" if recipe.get("teacher") else ""
    stem = ", its stem as ImageNet left it" if recipe.get("stem_sha256") else ""
    shown = card.get("sources", {})
    pictures = f"{sum(shown.values()):,} pictures of {len(shown)} sources, " if shown else ""
    return (
        f"{pictures}{steps} steps of {recipe['batch']} views, {gentle} of them gentle{stem}{start}{teacher}"
    )


def write_judgement(judged: RouterJudgement, out: Path) -> str:
    """Write `router.md`, `router.json` and the confusion matrices as `*.svg`; returns the page."""
    page = routing_page(judged)
    for name, chart in routing_charts(judged).items():
        write_bytes(out / name, chart.encode())
    write_bytes(out / "router.md", page.encode())
    write_bytes(out / "router.json", (json.dumps(judgement_json(judged), indent=1) + "\n").encode())
    return page
