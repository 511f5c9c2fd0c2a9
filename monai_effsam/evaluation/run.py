# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Labelled sets through the very steps of `effsam segment`, then every written mask against its label."""

from __future__ import annotations

import csv
import datetime
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from monai_effsam.data.io import write_bytes
from monai_effsam.data.sets import Case, read_sets
from monai_effsam.errors import DataError, UsageError, WeightsError
from monai_effsam.evaluation.machine import machine_facts, peak_memory_mb
from monai_effsam.evaluation.rows import LIMITS
from monai_effsam.evaluation.scores import FileScore, score_file
from monai_effsam.evaluation.summary import summarise
from monai_effsam.inference.plan import Request, default_model_path, make_plan
from monai_effsam.inference.run import Outcome, run_plan
from monai_effsam.inference.runtimes import ModelFacts
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.reports.table import results_page
from monai_effsam.targets import find_targets

__all__ = ["evaluate_model", "evaluate_sets", "model_name"]


def evaluate_model(
    model: Path | str,
    data_root: Path | str,
    out: Path | str,
    *,
    device: str = "cpu",
    runtime: str | None = None,
    threads: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """`evaluate_sets` for callers that hold paths, such as a bundle's configuration."""
    segmenter = Segmenter.open(model, runtime, device, threads=threads)
    return evaluate_sets(Path(data_root), segmenter, Path(out), **options)


def evaluate_sets(
    data_root: Path,
    segmenter: Segmenter,
    out: Path,
    *,
    sets: Sequence[str] | None = None,
    split: str = "val",
    seed: int = 0,
    overwrite: bool = False,
    on_file: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Segment one split of labelled sets without a prompt and say how well that went.

    Masks, overlays and `results.jsonl` of each set go to `out/SET`; `images.csv` (a line a target of a file),
    `summary.json` and `table.md` to `out`.

    Args:
        data_root: folder with `targets.csv` and a folder a set, see `data.sets`.
        segmenter: the model.
        out: output folder.
        sets: names of the sets; all that have the split by default.
        split: of `splits.csv`.
        seed: of the bootstrap.
        overwrite: replace an earlier evaluation in `out`.
        on_file: called with (files done, files in all).

    Returns:
        The content of `summary.json`.

    Raises:
        UsageError: no such set or split, a target that the model does not know, or outputs that exist.
        DataError: a table, image or label cannot be read (no number is made of a part), or the folder not be written.
    """
    cases = read_sets(data_root, sets, split)
    _check(cases, segmenter.model, data_root, split, out, overwrite)
    scores: list[FileScore] = []
    wall: dict[str, float] = {}
    for name in dict.fromkeys(case.set_name for case in cases):
        own = [case for case in cases if case.set_name == name]
        done = sum(case.set_name in wall for case in cases)
        tell = (lambda n, done=done: on_file(done + n, len(cases))) if on_file else None
        found, seconds = _evaluate_set(own, segmenter, out / name, overwrite, tell)
        scores += found
        wall[name] = round(seconds * 1000 / len(own), 1)
    made = {"command": _command(data_root, segmenter, sets, split, seed), "split": split, "seed": seed}
    summary = _content(segmenter, scores, wall, made)
    write_bytes(out / "images.csv", _csv(scores).encode())
    write_bytes(out / "table.md", results_page(summary).encode())
    write_bytes(out / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def model_name(model: ModelFacts) -> str:
    """What to call a model: its card's `name`, or the name of its bundle or run folder."""
    folder = model.path.resolve().parent
    return str(model.card.get("name") or (folder.parent.name if folder.name == "models" else folder.name))


def _check(
    cases: Sequence[Case], model: ModelFacts, root: Path, split: str, out: Path, overwrite: bool
) -> None:
    if not cases:
        raise UsageError(f"{root}: no file of the split '{split}', expected some. Choose --split or --sets.")
    for case in {case.set_name: case for case in cases}.values():
        find_targets(case.values.values(), case.modality, model.targets)
    if (out / "summary.json").exists() and not overwrite:
        raise UsageError(
            f"{out / 'summary.json'}: exists, expected a new file. Add --overwrite or choose another -o."
        )


def _evaluate_set(
    cases: Sequence[Case],
    segmenter: Segmenter,
    folder: Path,
    overwrite: bool,
    on_file: Callable[[int], None] | None,
) -> tuple[list[FileScore], float]:
    """Scores of one set, and the seconds that the folder run took; scoring is not timed."""
    outcomes: list[Outcome] = []

    def take(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if on_file:
            on_file(len(outcomes))

    inputs = tuple(case.image for case in cases)
    request = Request(inputs, folder, modality=cases[0].modality, overwrite=overwrite)
    plan = make_plan(request, segmenter.model.targets)
    start = time.perf_counter()
    run_plan(plan, segmenter, on_outcome=take)
    seconds = time.perf_counter() - start
    if failed := [outcome.error for outcome in outcomes if outcome.error]:
        raise DataError(
            f"evaluate: {len(failed)} of {len(outcomes)} files of '{cases[0].set_name}' failed, the first with: "
            f"{failed[0]} Mend them or take their lines out of splits.csv; no number is made of a part."
        )
    records = {outcome.job.source.path.resolve(): outcome.record for outcome in outcomes}
    scores = [
        score
        for case in cases
        for score in score_file(case, records[case.image.resolve()], folder, segmenter.model.targets)
    ]
    return scores, seconds


def _content(
    segmenter: Segmenter, scores: Sequence[FileScore], wall: dict[str, float], options: dict[str, Any]
) -> dict[str, Any]:
    model = segmenter.model
    peak = peak_memory_mb()
    summary = summarise(scores, seed=options["seed"])
    for name, value in wall.items():
        summary["sets"][name]["wall_ms_a_file"] = value
    return {
        "model": {"name": model_name(model), "sha256": model.card.get("sha256")},
        "made": {
            **options,
            "date": datetime.date.today().isoformat(),
            "device": segmenter.device,
            "runtime": segmenter.runtime.name,
            **machine_facts(segmenter.runtime.threads),
        },
        **summary,
        "limits": dict(LIMITS),
        "peak_mb": round(peak) if peak else None,
    }


def _command(data_root: Path, segmenter: Segmenter, sets: Sequence[str] | None, split: str, seed: int) -> str:
    """The command that makes these numbers again, without paths of one machine."""
    words = ["effsam", "evaluate", _told(data_root, "DATA_ROOT"), "-o", "OUT"]
    words += ["--sets", ",".join(sets)] if sets else []
    words += ["--split", split] if split != "val" else []
    words += ["--seed", str(seed)] if seed else []
    try:
        shipped = segmenter.model.path.resolve() == default_model_path().resolve()
    except WeightsError:
        shipped = False
    words += [] if shipped else ["--model", _told(segmenter.model.path, "MODEL")]
    return " ".join([*words, "--threads", str(segmenter.runtime.threads)])


def _told(path: Path, word: str) -> str:
    return word if path.is_absolute() else path.as_posix()


def _csv(scores: Sequence[FileScore]) -> str:
    text = io.StringIO()
    names = [field.name for field in fields(FileScore)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for score in scores:
        row = asdict(score)
        writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()
