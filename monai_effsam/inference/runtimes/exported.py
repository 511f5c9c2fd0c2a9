# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A model that `effsam export` wrote: a folder with `manifest.json` and graphs, read without torch.

`manifest.json` holds what `model.json` does (specs, target table, terms) and, for each graph, its file and sha256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import EffsamError, SpecError, WeightsError
from monai_effsam.inference.runtimes.contract import PromptArrays
from monai_effsam.specs import PROMPTABLE, SELF_PROMPTING, ImageSpec
from monai_effsam.targets import Target, targets_from_json

__all__ = [
    "FORMAT",
    "MANIFEST_NAME",
    "ExportedModel",
    "active_rows",
    "is_exported",
    "kind_of",
    "prompt_tokens",
    "read_exported",
    "sha256_of",
]

FORMAT = 1
MANIFEST_NAME = "manifest.json"
_FORMER_KINDS = {"esp_medsam": SELF_PROMPTING, "promptable_sam": PROMPTABLE}
"""What the first exports were called."""

_BOX_LABELS = (2, 3)  # of a box's corners among segment-anything's point labels
_NO_POINT = -1


@dataclass(frozen=True)
class ExportedModel:
    """An exported model.

    Args:
        specs: an `ImageSpec` for each modality name; of a promptable model under "" that of all others.
        targets: the target table.
        card: the whole manifest, its `kind` one of `specs.SELF_PROMPTING` and `specs.PROMPTABLE`.
        path: of `manifest.json`.
    """

    specs: Mapping[str, ImageSpec]
    targets: tuple[Target, ...]
    card: dict[str, Any]
    path: Path

    @property
    def promptable(self) -> bool:
        """Whether it outlines what it is prompted for, and nothing by itself."""
        return bool(self.card["kind"] == PROMPTABLE)

    def files(self, runtime: str) -> dict[str, Path]:
        """The graphs of a runtime, `encoder` and `decoder`, their bytes checked.

        Raises:
            WeightsError: the folder has none for it, or a file is missing or damaged.
        """
        graphs = self.card["graphs"].get(runtime)
        if graphs is None:
            raise WeightsError(
                f"{self.path}: holds no graphs for {runtime}, only for {', '.join(self.card['graphs'])}. "
                "Export the model again with that runtime."
            )
        for entries in graphs.values():
            for name, sha256 in entries.items():
                _check(self.path.parent / name, sha256)
        return {role: self.path.parent / next(iter(entries)) for role, entries in graphs.items()}


def is_exported(path: Path) -> bool:
    """Whether a path is an exported model's folder or its manifest."""
    return (path / MANIFEST_NAME).is_file() or (path.name == MANIFEST_NAME and path.is_file())


def read_exported(path: Path | str) -> ExportedModel:
    """The exported model of a folder or a manifest; its graphs are checked when a runtime opens them.

    Raises:
        WeightsError: the manifest is missing, damaged or of a newer version.
    """
    file = Path(path) if Path(path).name == MANIFEST_NAME else Path(path) / MANIFEST_NAME
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        if card["format"] > FORMAT:
            raise WeightsError(
                f"{file}: format is {card['format']}, expected at most {FORMAT}. Update the package to use this model."
            )
        specs = {name: ImageSpec.from_json(values) for name, values in card["specs"].items()}
        if not all(isinstance(graphs, dict) for graphs in card["graphs"].values()):
            raise TypeError("graphs hold no files")
        card["kind"] = kind_of(card)
        return ExportedModel(specs, targets_from_json(card["targets"]), card, file)
    except OSError as error:
        raise WeightsError(
            f"{file}: cannot be read ({error.strerror}). Give a folder of `effsam export`."
        ) from error
    except WeightsError:
        raise
    except (ValueError, TypeError, AttributeError, LookupError, EffsamError) as error:
        raise WeightsError(
            f"{file}: describes no exported model ({error}). Export the model again."
        ) from error


def kind_of(card: Mapping[str, Any]) -> str:
    """The kind that a manifest or a `model.json` tells.

    Raises:
        SpecError: it is not known here.
    """
    told = str(card.get("kind", SELF_PROMPTING))
    kind = _FORMER_KINDS.get(told, told)
    if kind not in (SELF_PROMPTING, PROMPTABLE):
        raise SpecError(
            f"kind is '{told}', expected {SELF_PROMPTING} or {PROMPTABLE}. The file was made by a newer version."
        )
    return kind


def active_rows(model: ExportedModel, modality: int) -> NDArray[np.int64]:
    """Rows (T_m,) of the target table that belong to a modality."""
    names = tuple(dict.fromkeys(t.modality for t in model.targets))
    return np.array([i for i, t in enumerate(model.targets) if t.modality == names[modality]], np.int64)


def prompt_tokens(prompt: PromptArrays | None, batch: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A prompt as the decoder graph wants it: points (B, N, 2) and their labels (B, N), corners of a box among them.

    Labels are segment-anything's: -1 no point, 0 outside, 1 inside, 2 and 3 the corners of a box. Where points come
    without a box a "no point" follows them, as in segment-anything. Without any prompt N is 0.
    """
    points, labels = np.zeros((batch, 0, 2), np.float32), np.zeros((batch, 0), np.int64)
    if prompt is not None and prompt.points is not None and prompt.labels is not None:
        points, labels = prompt.points, prompt.labels
        if prompt.box is None:
            points = np.concatenate([points, np.zeros((batch, 1, 2), np.float32)], 1)
            labels = np.concatenate([labels, np.full((batch, 1), _NO_POINT, np.int64)], 1)
    if prompt is not None and prompt.box is not None:
        corners = prompt.box.reshape(batch, 2, 2)
        points = np.concatenate([points, corners], 1)
        labels = np.concatenate([labels, np.tile(np.array(_BOX_LABELS, np.int64), (batch, 1))], 1)
    return points, labels


def sha256_of(file: Path) -> str:
    """Checksum of a file's bytes, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check(file: Path, sha256: str) -> None:
    try:
        found = sha256_of(file)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}). Export the model again.") from error
    if found != sha256:
        raise WeightsError(
            f"{file}: sha256 is {found[:12]}..., expected {sha256[:12]}...; the file is damaged or was exchanged. "
            "Export the model again."
        )
