# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What an evaluation leaves behind: the content of `summary.json`, and the command that makes it again."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_effsam.evaluation.machine import machine_facts
from monai_effsam.evaluation.rows import LIMITS
from monai_effsam.evaluation.scores import FileScore
from monai_effsam.evaluation.settings import EvaluationSettings
from monai_effsam.evaluation.summary import summarise
from monai_effsam.inference.model_path import DEFAULT_MODEL, shipped_models
from monai_effsam.inference.runtimes import ModelFacts
from monai_effsam.inference.segmenter import Segmenter

__all__ = ["command_of", "data_words", "model_name", "summary_of", "told_path"]


def model_name(model: ModelFacts) -> str:
    """What to call a model: its card's `name`, or the name of its bundle or run folder."""
    folder = model.path.resolve().parent
    return str(model.card.get("name") or (folder.parent.name if folder.name == "models" else folder.name))


def data_words(
    data: Path, sets: Sequence[str] | None = None, modality: str | None = None, targets: Sequence[str] = ()
) -> tuple[str, ...]:
    """The words of a command that name labelled images, without paths of one machine."""
    words = [told_path(data, "DATA"), "-o", "OUT"]
    words += ["--sets", ",".join(sets)] if sets else []
    words += ["--modality", modality] if modality else []
    return (*words, *(word for target in targets for word in ("--target", target)))


def command_of(segmenter: Segmenter, words: Sequence[str], settings: EvaluationSettings) -> str:
    """The command that makes these numbers again.

    Args:
        segmenter: the model.
        words: from `data_words`.
        settings: of the evaluation.
    """
    usual, robot = EvaluationSettings(), settings.robot
    options = {
        "--split": settings.split if settings.split != usual.split else None,
        "--tolerance": f"{settings.tolerance:g}" if settings.tolerance != usual.tolerance else None,
        "--robot": robot.start if robot else None,
        "--clicks": robot.clicks if robot else None,
        "--jitter": robot.jitter or None if robot else None,
        "--compare": told_path(settings.compare, "OTHER") if settings.compare else None,
        "--seed": settings.seed or None,
        "--model": _model_word(segmenter.model),
        "--family": segmenter.model.card.get("family"),
        "--runtime": segmenter.runtime.name if segmenter.runtime.name != "torch" else None,
        "--threads": segmenter.runtime.threads,
    }
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return " ".join(["effsam", "evaluate", *words, *given])


def summary_of(
    segmenter: Segmenter,
    scores: Sequence[FileScore],
    settings: EvaluationSettings,
    *,
    words: Sequence[str],
    wall_ms: Mapping[str, float],
    peak_mb: float | None,
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        segmenter: the model.
        scores: of all files.
        settings: of the evaluation.
        words: from `data_words`.
        wall_ms: of each set, the time of its folder run divided by its files [ms].
        peak_mb: the most memory that the process held while it segmented [MB].
    """
    summary = summarise(scores, seed=settings.seed)
    for name, value in wall_ms.items():
        summary["sets"][name]["wall_ms_a_file"] = value
    robot = settings.robot
    return {
        "model": {"name": model_name(segmenter.model), "sha256": segmenter.model.card.get("sha256")},
        "made": {
            "command": command_of(segmenter, words, settings),
            "split": settings.split,
            "seed": settings.seed,
            "tolerance": settings.tolerance,
            "robot": {"start": robot.start, "clicks": robot.clicks, "jitter": robot.jitter}
            if robot
            else None,
            "date": datetime.date.today().isoformat(),
            "device": segmenter.device,
            "runtime": segmenter.runtime.name,
            **machine_facts(segmenter.runtime.threads),
        },
        **summary,
        "limits": dict(LIMITS),
        "peak_mb": round(peak_mb) if peak_mb else None,
    }


def _model_word(model: ModelFacts) -> str | None:
    """How the command names a model: not at all if it is the default, by its name if it ships, else by its path."""
    shipped = {(folder / "models" / "model.pt").resolve(): name for name, folder in shipped_models().items()}
    name = shipped.get(model.path.resolve())
    return None if name == DEFAULT_MODEL else name or told_path(model.path, "MODEL")


def told_path(path: Path, word: str) -> str:
    """A path as pages tell it: relative ones as they are, of others only what they stand for."""
    return word if path.is_absolute() else path.as_posix()
