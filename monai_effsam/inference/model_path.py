# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Which file or folder a model's name means, and what is told beside it; nothing is loaded, torch least of all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import monai_effsam
from monai_effsam.errors import UsageError, WeightsError
from monai_effsam.inference.runtimes.exported import MANIFEST_NAME, kind_of
from monai_effsam.specs import CLASSIFIER, PROMPTABLE
from monai_effsam.targets import TARGETS, Target, targets_from_json

__all__ = [
    "DEFAULT_MODEL",
    "ROUTER",
    "ModelTold",
    "default_model_path",
    "find_model_path",
    "router_path",
    "shipped_models",
    "told_of",
]

DEFAULT_MODEL = "esp_medsam"
"""Name of the bundle that is used where none is named."""

ROUTER = "tic_classifier"
"""Name of the bundle that tells modalities apart."""


@dataclass(frozen=True, slots=True)
class ModelTold:
    """What is known of a model before it is loaded.

    Args:
        targets: its target table, the package's own if it cannot be found.
        promptable: whether it outlines what it is prompted for; None where nothing beside the weights tells.
    """

    targets: tuple[Target, ...] = TARGETS
    promptable: bool | None = None


def shipped_models() -> dict[str, Path]:
    """Bundles with a model that outlines, inside the installed package or beside it in a checkout: name -> folder."""
    found: dict[str, Path] = {}
    for place in _places():
        for model in sorted(place.glob("*/models/model.pt")):
            if not _names_only(model.with_suffix(".json")):
                found.setdefault(model.parents[1].name, model.parents[1])
    return found


def router_path() -> Path:
    """The folder of the bundle that tells modalities apart.

    Raises:
        WeightsError: it is missing.
    """
    for place in _places():
        if (place / ROUTER / "models" / "model.json").is_file():
            return place / ROUTER
    raise WeightsError(
        f"{_places()[-1] / ROUTER}: the router that ships is missing. Install the package again."
    )


def _names_only(card: Path) -> bool:
    """Whether a model names what it is shown and outlines nothing."""
    try:
        return f'"kind": "{CLASSIFIER}"' in card.read_text(encoding="utf-8")[:200]
    except (OSError, UnicodeDecodeError):
        return False  # loading the model will say what is wrong with its card


def default_model_path() -> Path:
    """The weights of the model that ships and prompts itself.

    Raises:
        WeightsError: they are missing.
    """
    folder = shipped_models().get(DEFAULT_MODEL)
    if folder is None:
        missing = _places()[-1] / DEFAULT_MODEL / "models" / "model.pt"
        raise WeightsError(f"{missing}: the model that ships is missing. Name one with --model.")
    return folder / "models" / "model.pt"


def find_model_path(model: Path | None, option: str = "--model") -> Path:
    """The path of the model that a user names: a file, a folder, or a bundle that ships; None for the default.

    Args:
        model: as given.
        option: named in the error.

    Raises:
        UsageError: there is no such file, folder or bundle; the message lists the bundles.
        WeightsError: none is given, and the one that ships is missing.
    """
    if model is None:
        return default_model_path()
    if model.exists():
        return model
    shipped = shipped_models()
    if str(model) in shipped:
        return shipped[str(model)]
    names = f", or one of those that ship: {', '.join(shipped)}" if shipped else ""
    raise UsageError(
        f"{option}: {model} is missing, expected a model.pt, a training run, a bundle or an exported folder{names}. "
        "Check the name."
    )


def told_of(model: Path) -> ModelTold:
    """What the description beside a model's weights tells, read without torch."""
    folders = (model, model / "models")
    names = ("model.json", MANIFEST_NAME)
    cards = (model.with_suffix(".json"), *(folder / name for folder in folders for name in names))
    card = next((card for card in cards if card.is_file()), None)
    if card is None:
        return ModelTold()
    try:
        values = json.loads(card.read_text(encoding="utf-8"))
        return ModelTold(targets_from_json(values["targets"]), kind_of(values) == PROMPTABLE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ModelTold()  # loading the model will say what is wrong with its card


def _places() -> tuple[Path, Path]:
    package = Path(monai_effsam.__file__).parent
    return package / "bundles", package.parent / "bundles"
