# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Classifier files of this package: `model.pt`, a plain state dict, and `model.json` beside it.

`model.json` is as of other models (`model_file`), with `classes` in place of targets and the `ImageSpec` under "".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from monai_effsam.checkpoints.description import FORMAT, read_card
from monai_effsam.checkpoints.model_file import find_model, fit_weights, load_state
from monai_effsam.checkpoints.reading import sha256_of
from monai_effsam.errors import WeightsError
from monai_effsam.networks.encoders.tic_trunk import TicSize
from monai_effsam.networks.nets.tic import TicClassifier
from monai_effsam.specs import ANY_MODALITY, CLASSIFIER, ImageSpec

__all__ = ["LoadedClassifier", "build_classifier", "load_classifier", "save_classifier", "weights_told"]


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier ready to run, with what belongs to it.

    Args:
        network: in eval mode.
        spec: how it wants its input.
        classes: names, in the order of its logits.
        card: the whole of `model.json`.
        path: of `model.pt`.
    """

    network: TicClassifier
    spec: ImageSpec
    classes: tuple[str, ...]
    card: dict[str, Any]
    path: Path


def build_classifier(
    options: Mapping[str, Any], classes: int, init: Path | str | None = None
) -> TicClassifier:
    """A `TicClassifier` from options as JSON holds them: `size` may be a mapping with the fields of a `TicSize`.

    Args:
        options: keyword arguments of the network.
        classes: length of its answer.
        init: classifier whose weights to start from; None or empty for none.

    Raises:
        WeightsError: `init` is no classifier, or does not fit.
        SpecError: options that do not fit.
        UnknownNameError: no size of that name.
    """
    size = options.get("size", "nano")
    if isinstance(size, Mapping):
        widths, depths = tuple(size["widths"]), tuple(size["depths"])
        size = TicSize(widths, depths, size.get("head_channels", 32))
    network = TicClassifier(classes, **{**options, "size": size})
    if init:
        file = find_model(Path(init))
        fit_weights(network, load_state(file, read_card(file).get("sha256")), file)
    return network


def weights_told(init: Path | str | None) -> str:
    """The sha256 of the weights that a training starts from; empty for none.

    Raises:
        WeightsError: there is no model.
    """
    return str(read_card(find_model(Path(init))).get("sha256", "")) if init else ""


def save_classifier(
    path: Path,
    network: TicClassifier,
    spec: ImageSpec,
    options: Mapping[str, Any],
    classes: Sequence[str],
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write `model.pt`, weights in 16 bits, and `model.json`, each whole or not at all.

    Args:
        path: of `model.pt`; the JSON file gets the same stem.
        network: to be stored.
        spec: how it wants its input.
        options: as of `build_classifier`.
        classes: names, in the order of the logits.
        card: further entries of `model.json`.

    Returns:
        `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    torch.save({k: v.half() if v.dtype == torch.float32 else v for k, v in state.items()}, part)
    content = {
        "format": FORMAT,
        "kind": CLASSIFIER,
        "network": dict(options),
        "specs": {ANY_MODALITY: spec.to_json()},
        "targets": [],
        "classes": list(classes),
        "sha256": sha256_of(part),
        **(card or {}),
    }
    meta = path.with_suffix(".json.part")
    meta.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    meta.replace(path.with_suffix(".json"))
    return path


def load_classifier(path: Path | str) -> LoadedClassifier:
    """The classifier of a `model.pt`, a training run's folder or a bundle's folder.

    Raises:
        WeightsError: a file is missing, damaged, of another kind or version, or the weights do not fit.
    """
    file = find_model(Path(path))
    card, meta = read_card(file), file.with_suffix(".json")
    if card.get("kind") != CLASSIFIER:
        raise WeightsError(
            f"{meta}: kind is '{card.get('kind')}', expected {CLASSIFIER}. Name a classifier, such as the bundle "
            "tic_classifier."
        )
    try:
        spec, classes = ImageSpec.from_json(card["specs"][ANY_MODALITY]), tuple(card["classes"])
        network = build_classifier(card["network"], len(classes))
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise WeightsError(
            f"{meta}: describes no classifier of this package ({error}). Restore it from where the model came from."
        ) from error
    fit_weights(network, load_state(file, card.get("sha256")), file)
    return LoadedClassifier(network.eval(), spec, classes, card, file)
