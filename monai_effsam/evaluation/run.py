# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Labelled sets through the very steps of `effsam segment`, or a simulated user, then every mask against its label."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_effsam.data.io import write_bytes
from monai_effsam.data.sets import Case, read_sets
from monai_effsam.errors import DataError, UsageError
from monai_effsam.evaluation.compare import check_common, compare_rows, read_scores
from monai_effsam.evaluation.machine import peak_memory_mb
from monai_effsam.evaluation.outputs import data_words, summary_of
from monai_effsam.evaluation.robot_run import robot_scores
from monai_effsam.evaluation.scores import FileScore, score_file, scores_csv
from monai_effsam.evaluation.settings import EvaluationSettings
from monai_effsam.evaluation.showing import report_of
from monai_effsam.evaluation.summary import rows_of
from monai_effsam.evaluation.trivial import constant_masks
from monai_effsam.inference.plan import Request, make_plan
from monai_effsam.inference.run import Outcome, run_plan
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.reports.table import results_page
from monai_effsam.targets import find_targets

__all__ = ["evaluate_cases", "evaluate_model", "evaluate_sets", "named_cases"]

Tell = Callable[[int, int], None]


def evaluate_model(
    model: Path | str,
    data_root: Path | str,
    out: Path | str,
    *,
    device: str = "cpu",
    runtime: str | None = None,
    threads: int | None = None,
    family: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """`evaluate_sets` for callers that hold paths, such as a bundle's configuration."""
    segmenter = Segmenter.open(model, runtime, device, threads=threads, family=family)
    return evaluate_sets(Path(data_root), segmenter, Path(out), **options)


def evaluate_sets(
    data_root: Path,
    segmenter: Segmenter,
    out: Path,
    *,
    sets: Sequence[str] | None = None,
    settings: EvaluationSettings | None = None,
    overwrite: bool = False,
    on_step: Tell | None = None,
) -> dict[str, Any]:
    """`evaluate_cases` on a folder with `targets.csv` and a folder a set, see `data.sets`.

    Args:
        data_root: the folder.
        segmenter: the model.
        out: output folder.
        sets: names of the sets; all that have the split by default.
        settings: what is asked for besides.
        overwrite: replace an earlier evaluation in `out`.
        on_step: called with (steps done, steps in all); a step is a file that was answered, or scored.
    """
    cases = read_sets(data_root, sets)
    words = data_words(data_root, sets)
    return evaluate_cases(
        cases, segmenter, out, settings=settings, words=words, overwrite=overwrite, on_step=on_step
    )


def evaluate_cases(
    cases: Sequence[Case],
    segmenter: Segmenter,
    out: Path,
    *,
    settings: EvaluationSettings | None = None,
    words: Sequence[str] = (),
    overwrite: bool = False,
    on_step: Tell | None = None,
) -> dict[str, Any]:
    """Answer one split of labelled sets and say how well that went.

    Masks of each set go to `out/SET`, without prompts also overlays and `results.jsonl`; to `out` go `images.csv` (a
    line a target of a file), `summary.json`, `table.md` and `report.html`.

    Args:
        cases: of all splits; what is trivial is learnt from those of the split `train`.
        segmenter: the model.
        out: output folder.
        settings: what is asked for besides.
        words: of the command that names the cases, from `data_words`.
        overwrite: replace an earlier evaluation in `out`.
        on_step: called with (steps done, steps in all); a step is a file that was answered, or scored.

    Returns:
        The content of `summary.json`.

    Raises:
        UsageError: no such split, a target that the model does not know, or outputs that exist.
        DataError: a table, image or label cannot be read (no number is made of a part), or the folder not be written.
    """
    settings = settings or EvaluationSettings()
    chosen = [case for case in cases if case.split == settings.split]
    _check(chosen, segmenter, settings, out, overwrite)
    sets = {name: named_cases(chosen, name) for name in dict.fromkeys(case.set_name for case in chosen)}
    others = read_scores(settings.compare) if settings.compare else None
    if others is not None:
        check_common(others, sets)
    training = {name: [c for c in cases if c.set_name == name and c.split == "train"] for name in sets}
    if settings.robot:
        scores = _robot_scores(sets, training, segmenter, out, settings, on_step)
        wall_ms: dict[str, float] = {}  # scoring goes on between the answers
        peak_mb = peak_memory_mb()
    else:
        records, wall_ms = _records(sets, segmenter, out, overwrite, on_step)
        peak_mb = peak_memory_mb()  # of what `effsam segment` does, before anything is scored
        scores = _file_scores(sets, training, records, segmenter, out, settings, on_step)
    summary = summary_of(segmenter, scores, settings, words=words, wall_ms=wall_ms, peak_mb=peak_mb)
    last = [s for s in scores if s.prompt == scores[-1].prompt]
    if others is not None:
        judged, rest = rows_of(last)
        summary["comparison"] = compare_rows([*judged, *rest], last, others, seed=settings.seed)
    write_bytes(out / "images.csv", scores_csv(scores).encode())
    write_bytes(out / "table.md", results_page(summary).encode())
    write_bytes(out / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    files = {(name, image): case for name, own in sets.items() for image, case in own.items()}
    page = report_of(summary, last, files, segmenter.model.targets, out, settings.worst)
    write_bytes(out / "report.html", page.encode())
    return summary


def _check(
    cases: Sequence[Case], segmenter: Segmenter, settings: EvaluationSettings, out: Path, overwrite: bool
) -> None:
    if not cases:
        raise UsageError(
            f"evaluate: no file of the split '{settings.split}', expected some. Choose --split or --sets."
        )
    if segmenter.promptable and not settings.robot:
        raise UsageError(
            f"evaluate: {segmenter.model.path} outlines what it is prompted for, expected a simulated user. "
            "Add --robot box or --robot points."
        )
    for case in {case.set_name: case for case in cases}.values() if not segmenter.promptable else ():
        find_targets(case.values.values(), case.modality, segmenter.model.targets)
    if (out / "summary.json").exists() and not overwrite:
        raise UsageError(
            f"{out / 'summary.json'}: exists, expected a new file. Add --overwrite or choose another -o."
        )


def named_cases(cases: Sequence[Case], name: str) -> dict[str, Case]:
    """Cases of one set, by the path of their image below the folder that holds the set's folder of images."""
    own = [case for case in cases if case.set_name == name]
    shared = Path(os.path.commonpath([case.image.absolute().parent for case in own])).parent
    return {case.image.absolute().relative_to(shared).as_posix(): case for case in own}


def _robot_scores(
    sets: Mapping[str, Mapping[str, Case]],
    training: Mapping[str, Sequence[Case]],
    segmenter: Segmenter,
    out: Path,
    settings: EvaluationSettings,
    on_step: Tell | None,
) -> list[FileScore]:
    assert settings.robot is not None
    scores: list[FileScore] = []
    done, total = 0, sum(map(len, sets.values()))
    for name, own in sets.items():
        constants = constant_masks(training[name]) if settings.robot.start == "points" else {}
        tell, user = _from(done, total, on_step), settings.robot
        scores += robot_scores(
            own, segmenter, out, user, constants, tolerance=settings.tolerance, on_file=tell
        )
        done += len(own)
    if not scores:
        raise UsageError("evaluate: no label holds a target, expected some to prompt for. Choose other data.")
    return scores


def _records(
    sets: Mapping[str, Mapping[str, Case]],
    segmenter: Segmenter,
    out: Path,
    overwrite: bool,
    on_step: Tell | None,
) -> tuple[dict[str, dict[Path, dict[str, Any]]], dict[str, float]]:
    """Of each set the lines of `results.jsonl` by image, and the wall time a file [ms].

    All sets are segmented before the first mask is scored, so that time and memory are those of `effsam segment`.
    """
    records: dict[str, dict[Path, dict[str, Any]]] = {}
    wall: dict[str, float] = {}
    done, total = 0, 2 * sum(map(len, sets.values()))
    for name, own in sets.items():
        tell = _from(done, total, on_step)
        records[name], seconds = _folder_run(list(own.values()), segmenter, out / name, overwrite, tell)
        wall[name] = round(seconds * 1000 / len(own), 1)
        done += len(own)
    return records, wall


def _file_scores(
    sets: Mapping[str, Mapping[str, Case]],
    training: Mapping[str, Sequence[Case]],
    records: Mapping[str, Mapping[Path, dict[str, Any]]],
    segmenter: Segmenter,
    out: Path,
    settings: EvaluationSettings,
    on_step: Tell | None,
) -> list[FileScore]:
    scores: list[FileScore] = []
    done, table = sum(map(len, sets.values())), segmenter.model.targets
    tell, scored = _from(done, 2 * done, on_step), 0
    for name, own in sets.items():
        constants = constant_masks(training[name])
        for image, case in own.items():
            record = records[name][case.image.resolve()]
            scores += score_file(case, image, record, out, table, constants, tolerance=settings.tolerance)
            scored += 1
            if tell:
                tell(scored)
    return scores


def _folder_run(
    cases: Sequence[Case],
    segmenter: Segmenter,
    folder: Path,
    overwrite: bool,
    on_step: Callable[[int], None] | None,
) -> tuple[dict[Path, dict[str, Any]], float]:
    """Lines of `results.jsonl` of one set by image, and the seconds that the folder run took."""
    outcomes: list[Outcome] = []

    def take(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if on_step:
            on_step(len(outcomes))

    inputs = tuple(case.image for case in cases)
    request = Request(inputs, folder, modality=cases[0].modality, overwrite=overwrite)
    plan = make_plan(request, segmenter.model.targets)
    start = time.perf_counter()
    run_plan(plan, segmenter, on_outcome=take)
    seconds = time.perf_counter() - start
    if failed := [outcome.error for outcome in outcomes if outcome.error]:
        raise DataError(
            f"evaluate: {len(failed)} of {len(outcomes)} files of '{cases[0].set_name}' failed, the first with: "
            f"{failed[0]} Mend them or take them out of the split; no number is made of a part."
        )
    return {outcome.job.source.path.resolve(): outcome.record for outcome in outcomes}, seconds


def _from(done: int, total: int, on_step: Tell | None) -> Callable[[int], None] | None:
    """Progress within one set as progress of all."""
    return (lambda n: on_step(done + n, total)) if on_step else None
