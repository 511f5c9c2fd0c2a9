# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Several models in front of the same simulated user: the same boxes and points of the same pictures for each."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from monai_effsam.data.io import write_bytes
from monai_effsam.data.sets import Case
from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.evaluation.cost import gmacs_of
from monai_effsam.evaluation.machine import machine_facts
from monai_effsam.evaluation.models_answers import ModelFound, Opener, answer_picture, look_at
from monai_effsam.evaluation.models_rows import PromptedScore, RowsFile, Work
from monai_effsam.evaluation.models_summary import summarise_models
from monai_effsam.evaluation.models_times import rates_in_turns, times_in_turns
from monai_effsam.evaluation.robot import RobotUser
from monai_effsam.evaluation.run import named_cases
from monai_effsam.evaluation.trivial import constant_masks
from monai_effsam.reports.models_page import models_page, models_plot
from monai_effsam.targets import find_targets

__all__ = ["ModelsSettings", "compare_models"]

_ROWS, _SUMMARY = "images.csv", "summary.json"


@dataclass(frozen=True, slots=True)
class ModelsSettings:
    """What is asked of every model.

    Args:
        jitter: how far the sides of a box stray, one prompt each, see `RobotUser`; beside them there is one click,
            which does not stray.
        reference: the model that each other one is compared with; None for the first.
        split: that is answered; what is trivial is learnt from the split `train`.
        seed: of the straying and of the bootstrap.
        notes: Markdown that the page holds as it is.
        batches: pictures at once for which the encoders' throughput is measured; none by default.

    Raises:
        UsageError: no jitter, one that is negative or given twice.
    """

    jitter: tuple[int, ...] = (0, 10, 20)
    reference: str | None = None
    split: str = "val"
    seed: int = 0
    notes: str = ""
    batches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what asks nothing, or the same twice."""
        if not self.jitter or len(set(self.jitter)) < len(self.jitter):
            told = ", ".join(map(str, self.jitter)) or "empty"
            raise UsageError(f"compare: jitter is {told}, expected one or more different numbers of pixels.")
        self.users()

    def users(self) -> dict[str, RobotUser]:
        """Who prompts, by the name of the prompt."""
        boxes = {
            f"box jitter {jitter}" if jitter else "box": RobotUser("box", 0, jitter, self.seed)
            for jitter in self.jitter
        }
        return boxes | {"point": RobotUser("points", 1, 0, self.seed)}


def compare_models(
    cases: Sequence[Case],
    models: Mapping[str, Opener],
    out: Path,
    *,
    settings: ModelsSettings | None = None,
    command: str = "",
    resume: bool = False,
    overwrite: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Prompt several models in the same way and set their masks side by side.

    To `out` go `images.csv` (a line a target of a picture, model and prompt), `summary.json`, `table.md` and
    `table.svg`. The lines are saved every few seconds, so an interrupted run can be resumed.

    Args:
        cases: of all splits; only pictures that hold a target count.
        models: by name, in the order of the table, functions that open them. Each is opened once to look at it, and
            again while it answers; in the end all at once, to be timed in turns.
        out: output folder.
        settings: what is asked.
        command: that makes this again.
        resume: keep what `out` has of these very models, prompts and seed. That data or machine have changed since
            is not noticed.
        overwrite: begin anew where `out` has a table.
        on_step: called with (pictures done, pictures in all), of all models.

    Returns:
        The content of `summary.json`.

    Raises:
        UsageError: no such split, no picture with a target, a target that a model does not know, or outputs that
            exist.
        UnknownNameError: no such reference.
        DataError: a table, image or label cannot be read, or the folder not be written.
    """
    settings = settings or ModelsSettings()
    chosen = [case for case in cases if case.split == settings.split]
    _check(chosen, models, settings, out, resume or overwrite)
    found = [_looked_at(name, opened, chosen) for name, opened in models.items()]
    table = RowsFile(out / _ROWS, [one.run for one in found], resume=resume)
    ask = _Questions(cases, chosen, settings)
    try:
        for number, one in enumerate(found):
            tell = _from(number * len(chosen), len(found) * len(chosen), on_step)
            _ask_all(one, models[one.run.model], ask, table, tell)
    finally:
        table.save()
    rows = ask.answered(table, found)
    if not rows:
        raise UsageError("compare: no label holds a target, expected some to prompt for. Choose other data.")
    kept = _kept_times(out / _SUMMARY, found, settings.batches) if resume else None
    times = kept or _timed(models, ask.turns(), settings.batches)
    summary = {
        "made": {
            "command": command,
            "split": settings.split,
            "seed": settings.seed,
            "date": datetime.date.today().isoformat(),
            **machine_facts(found[0].run.threads),
        },
        **summarise_models(
            rows, found, ask.users, times=times, reference=settings.reference, seed=settings.seed
        ),
        "notes": settings.notes,
    }
    write_bytes(out / "table.md", models_page(summary, "table.svg").encode())
    write_bytes(out / "table.svg", models_plot(summary).encode())
    write_bytes(out / _SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
    return summary


class _Questions:
    """The pictures and prompts that every model gets, and what needs to be read but once for all of them."""

    def __init__(self, cases: Sequence[Case], chosen: Sequence[Case], settings: ModelsSettings) -> None:
        self.users = settings.users()
        names = dict.fromkeys(case.set_name for case in chosen)
        self.sets = {name: named_cases(chosen, name) for name in names}
        self.empty: set[tuple[str, str]] = set()
        training = {
            name: [case for case in cases if case.set_name == name and case.split == "train"]
            for name in names
        }
        self.constants = cache(lambda name: constant_masks(training[name]))

    def answered(self, table: RowsFile, found: Sequence[ModelFound]) -> list[PromptedScore]:
        """What these models answered to just these questions, picture by picture in the order of the sets."""
        pictures = [(name, image) for name, own in self.sets.items() for image in own]
        place = {picture: number for number, picture in enumerate(pictures)}
        asked = {
            Work(one.run, prompt, user.seed, *picture)
            for one in found
            for prompt, user in self.users.items()
            for picture in pictures
        }
        rows = [row for row in table.rows if row.work in asked]
        return sorted(rows, key=lambda row: place[row.set_name, row.image])

    def turns(self) -> list[Case]:
        """The pictures, a set after the other in turns."""
        rounds = zip_longest(*(own.values() for own in self.sets.values()))
        return [case for one in rounds for case in one if case is not None]


def _ask_all(
    found: ModelFound,
    opened: Opener,
    ask: _Questions,
    table: RowsFile,
    tell: Callable[[int], None],
) -> None:
    """What the table lacks of one model; it is opened if that is anything."""
    segmenter = cache(opened)
    pictures = [(name, image, case) for name, own in ask.sets.items() for image, case in own.items()]
    for number, (name, image, case) in enumerate(pictures, 1):
        missing = {
            prompt: user
            for prompt, user in ask.users.items()
            if Work(found.run, prompt, user.seed, name, image) not in table.done
        }
        if missing and (name, image) not in ask.empty:
            constants = partial(ask.constants, name)
            rows = answer_picture(case, image, segmenter, found.run, missing, constants)
            table.add(rows)
            if not rows:
                ask.empty.add((name, image))
        tell(number)


def _check(
    cases: Sequence[Case], models: Mapping[str, Opener], settings: ModelsSettings, out: Path, may_exist: bool
) -> None:
    if not cases:
        raise UsageError(
            f"compare: no file of the split '{settings.split}', expected some. Choose --split or --sets."
        )
    if not models:
        raise UsageError("compare: no model given, expected at least one. Add --model NAME=PATH.")
    if settings.reference is not None and settings.reference not in models:
        raise UnknownNameError("reference", settings.reference, models)
    if (out / _ROWS).exists() and not may_exist:
        raise UsageError(
            f"{out / _ROWS}: exists, expected a new file. Add --resume to go on with it, --overwrite to replace it, or "
            "choose another -o."
        )


def _looked_at(name: str, opened: Opener, cases: Sequence[Case]) -> ModelFound:
    """What a model is; refused if it has targets of its own, and not those of the sets."""
    segmenter = opened()
    for case in {case.set_name: case for case in cases}.values() if not segmenter.promptable else ():
        find_targets(case.values.values(), case.modality, segmenter.model.targets)
    return look_at(name, segmenter)


def _timed(
    models: Mapping[str, Opener], cases: Sequence[Case], batches: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """What each model costs: medians of its halves, arithmetic, throughput where that is asked for."""
    once = {name: cache(opened) for name, opened in models.items()}
    times = times_in_turns(once, cases)
    macs = {name: gmacs_of(opened()) for name, opened in once.items()}
    found = rates_in_turns(once, batches) if batches else {}
    rates = {name: {"images_s": rate} for name, rate in found.items()}
    return {name: {**own, "gmacs": macs[name], **rates.get(name, {})} for name, own in times.items()}


def _kept_times(
    file: Path, found: Sequence[ModelFound], batches: Sequence[int]
) -> dict[str, dict[str, Any]] | None:
    """Of an earlier summary of these very models; None if there is none, or it lacks something."""
    keys = ("encode_ms", "decode_ms", "gmacs", *(("images_s",) if batches else ()))
    try:
        told = json.loads(file.read_text(encoding="utf-8"))["models"]
        if [{key: entry[key] for key in one.to_json()} for entry, one in zip(told, found, strict=True)] != [
            one.to_json() for one in found
        ]:
            return None
        if any(list(e.get("images_s", {})) != [str(size) for size in batches] for e in told if batches):
            return None
        return {e["model"]: {key: e[key] for key in keys} for e in told}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _from(done: int, total: int, on_step: Callable[[int, int], None] | None) -> Callable[[int], None]:
    """Progress of one model as progress of all."""
    return (lambda number: on_step(done + number, total)) if on_step else (lambda number: None)
