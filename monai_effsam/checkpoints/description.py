# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`model.json`, the description beside the weights of a model of this package: read, checked, turned into a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_effsam.errors import WeightsError
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ANY_MODALITY, PROMPTABLE, SELF_PROMPTING, ImageSpec
from monai_effsam.targets import Target, targets_from_json

__all__ = ["FORMAT", "build_described", "check_spec", "is_described", "read_card"]

FORMAT = 1


def read_card(file: Path) -> dict[str, Any]:
    """The `model.json` beside a `model.pt`.

    Raises:
        WeightsError: it is missing, not JSON, or of a newer format.
    """
    meta = file.with_suffix(".json")
    try:
        card = json.loads(meta.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(
            f"{meta}: cannot be read ({error.strerror}). It belongs beside {file.name}."
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(
            f"{meta}: is not JSON ({error}). Restore it from where the model came from."
        ) from error
    lacking = sorted(
        {"format", "network", "specs", "targets"} - (card.keys() if isinstance(card, dict) else set())
    )
    if lacking:
        raise WeightsError(
            f"{meta}: lacks {', '.join(lacking)}, expected the description of a model. Restore it from where the "
            "model came from."
        )
    if not isinstance(card["format"], int) or card["format"] > FORMAT:
        raise WeightsError(
            f"{meta}: format is {card['format']}, expected at most {FORMAT}. Update the package to use this model."
        )
    return dict(card)


def is_described(file: Path) -> bool:
    """Whether a file beside the weights means to describe them; a spoilt one does, and `read_card` refuses it."""
    try:
        card = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    except OSError:
        return False
    except ValueError:
        return True
    return isinstance(card, dict) and {"format", "network"} <= card.keys()


def build_described(
    card: Mapping[str, Any], meta: Path
) -> tuple[EspMedSam | PromptableSam, dict[str, ImageSpec], tuple[Target, ...]]:
    """The network, with no weights yet, and the specs and targets of a description.

    Args:
        card: from `read_card`.
        meta: its file, named in errors.

    Raises:
        WeightsError: an unknown kind, options that build no network, or specs that it cannot take.
    """
    kind = card.get("kind", SELF_PROMPTING)
    if kind not in (SELF_PROMPTING, PROMPTABLE):
        raise WeightsError(
            f"{meta}: kind is '{kind}', expected {SELF_PROMPTING} or {PROMPTABLE}. Update the package to use it."
        )
    network: EspMedSam | PromptableSam
    try:
        specs = {name: ImageSpec.from_json(values) for name, values in card["specs"].items()}
        targets = targets_from_json(card["targets"])
        if kind == PROMPTABLE:
            network = PromptableSam(**card["network"])
            needed: Sequence[str] = tuple(dict.fromkeys((ANY_MODALITY, *specs)))
        else:
            network = EspMedSam(**{**card["network"], "targets": targets})
            needed = network.modalities
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        raise WeightsError(
            f"{meta}: describes no network of this package ({error}). Restore it from where the model came from."
        ) from error
    remedy = "Restore it from where the model came from."
    for name in needed:
        where = f"{meta}: ImageSpec of {name or 'any modality'}"
        if name not in specs:
            raise WeightsError(f"{where} is missing, expected one. {remedy}")
        check_spec(network, specs[name], where, remedy)
    return network, specs, targets


def check_spec(network: EspMedSam | PromptableSam, spec: ImageSpec, where: str, remedy: str) -> None:
    """Refuse a spec that a network cannot take.

    Args:
        network: to be given such input.
        spec: of the input.
        where: beginning of the error, `FILE: ImageSpec`.
        remedy: its end.

    Raises:
        WeightsError: another size, stride or frame of prompts than the network's.
    """
    promptable = isinstance(network, PromptableSam)
    encoder = network.image_encoder if isinstance(network, PromptableSam) else network.encoder
    sizes = encoder.fixed_size or f"a multiple of {encoder.size_divisor}"
    fits = spec.size == sizes if encoder.fixed_size else spec.size % encoder.size_divisor == 0
    if not fits or (promptable and spec.stride != encoder.stride):
        raise WeightsError(
            f"{where} has size {spec.size} and stride {spec.stride}, expected size {sizes} and stride "
            f"{encoder.stride}. {remedy}"
        )
    if isinstance(network, PromptableSam):
        frame, own = spec.prompt_size or spec.size, network.prompt_size or spec.size
        if frame != own:
            raise WeightsError(f"{where} has prompt_size {frame}, expected {own}, the network's. {remedy}")
