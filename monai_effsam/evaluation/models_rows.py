# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What one model answers to one prompt for one target of one picture: a line of the table of models, and its file."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from monai_effsam.data.io import write_bytes
from monai_effsam.data.sets import read_table
from monai_effsam.errors import DataError

__all__ = ["ModelRun", "PromptedScore", "RowsFile", "Work", "read_rows", "rows_csv"]


_SAVE_SECONDS = 10.0


class ModelRun(NamedTuple):
    """A model as it ran; masks and times of another run are another model's.

    Attributes:
        model: its name in the table.
        sha256: of its weights.
        family: of SAM-like weights, whose input they want; empty for models of this package.
        runtime: `torch`, `onnxruntime`, `openvino` or `openvino int8`.
        device: where it ran.
        threads: CPU threads of the network.
    """

    model: str
    sha256: str
    family: str
    runtime: str
    device: str
    threads: int


class Work(NamedTuple):
    """What is answered in one go: a picture, by a model, to a prompt.

    Attributes:
        run: the model.
        prompt: its name.
        seed: of the straying.
        set_name: the set.
        image: the picture's name within it.
    """

    run: ModelRun
    prompt: str
    seed: int
    set_name: str
    image: str


@dataclass(frozen=True, slots=True)
class PromptedScore:
    """One target of one picture, outlined by one model after one prompt; a line of `images.csv`.

    Numbers are rounded as the file holds them, so that a table made of the file is the same.

    Args:
        model: see `ModelRun`, as the next five.
        sha256: of the weights.
        family: of the weights.
        runtime: of the model.
        device: of the model.
        threads: of the model.
        prompt: `box`, `box jitter N` or `point`.
        seed: of the straying.
        set_name: the set.
        image: path of the image, as in `FileScore`.
        group: patient or sequence.
        target: its name.
        slices: of the file; 1 for a picture.
        label_px: pixels of the label, of all slices.
        mask_px: pixels of the answer.
        dice: of the whole file.
        trivial: Dice of the answer that needs no look at the picture: the ellipse in the very box that was prompted,
            after a point the constant mask; NaN if there is none.
        iou: of the whole file.
        quality: the model's own estimate of the IoU, before it saw the label; a mean over the slices.
        encode_ms: time to prepare and encode the picture, the slices that hold the target [ms].
        decode_ms: time to decode the prompt and bring the mask back to the picture, the same slices [ms].
    """

    model: str
    sha256: str
    family: str
    runtime: str
    device: str
    threads: int
    prompt: str
    seed: int
    set_name: str
    image: str
    group: str
    target: str
    slices: int
    label_px: int
    mask_px: int
    dice: float
    trivial: float
    iou: float
    quality: float
    encode_ms: float
    decode_ms: float

    @property
    def run(self) -> ModelRun:
        """The model."""
        return ModelRun(self.model, self.sha256, self.family, self.runtime, self.device, self.threads)

    @property
    def work(self) -> Work:
        """What this line came from, together with those of the picture's other targets."""
        return Work(self.run, self.prompt, self.seed, self.set_name, self.image)

    @property
    def key(self) -> tuple[str, str, str]:
        """What was asked: set, picture, target."""
        return self.set_name, self.image, self.target


_KINDS = {f.name: {"int": int, "float": float, "str": str}[str(f.type)] for f in fields(PromptedScore)}
_EMPTY = {int: "", float: "nan", str: ""}


def rows_csv(rows: Iterable[PromptedScore]) -> str:
    """Lines as a table; nothing stands for what is not defined."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_KINDS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in asdict(row).items()} for row in rows)
    return text.getvalue()


def read_rows(path: Path) -> list[PromptedScore]:
    """The lines of a table that `rows_csv` made.

    Raises:
        DataError: it cannot be read, or is another table.
    """
    rows = read_table(path, tuple(_KINDS))
    try:
        return [
            PromptedScore(**{name: kind(row[name] or _EMPTY[kind]) for name, kind in _KINDS.items()})
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: is no table of models ({error}), expected the images.csv of `effsam compare`. "
            "Choose another folder, or --overwrite it."
        ) from error


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value


class RowsFile:
    """The lines of `images.csv`, saved now and then while they are made.

    Args:
        path: of the file.
        runs: models that are asked; what others of their names answered is dropped.
        resume: begin with what the file holds.

    Raises:
        DataError: it is another table.
    """

    def __init__(self, path: Path, runs: Iterable[ModelRun], *, resume: bool) -> None:
        own = {run.model: run for run in runs}
        kept = read_rows(path) if resume and path.exists() else []
        self.path, self.saved = path, time.monotonic()
        self.rows = [row for row in kept if own.get(row.model, row.run) == row.run]
        self.done = {row.work for row in self.rows}

    def add(self, rows: Iterable[PromptedScore]) -> None:
        """All lines of a picture at once."""
        self.rows += rows
        if time.monotonic() - self.saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the file, whole; nothing where there is nothing to keep."""
        if self.rows:
            write_bytes(self.path, rows_csv(self.rows).encode())
        self.saved = time.monotonic()
