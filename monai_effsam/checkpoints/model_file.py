# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Model files of this package: `model.pt`, a plain state dict, and `model.json` beside it, all that it needs to run.

`model.json` holds the network's options, an `ImageSpec` for each modality, the target table, the sha256 of `model.pt`
and whatever else belongs on a model card (data, terms, recipe, metrics).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_effsam.checkpoints.reading import read_plain, sha256_of
from monai_effsam.errors import WeightsError
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import Target, targets_from_json

__all__ = ["LoadedModel", "find_model", "fit_weights", "load_model", "load_state", "read_card", "save_model"]

FORMAT = 1


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to run, with what belongs to it.

    Args:
        network: in eval mode.
        specs: an `ImageSpec` for each modality name.
        targets: the target table it was trained with.
        card: the whole of `model.json`.
        path: of `model.pt`.
    """

    network: EspMedSam
    specs: Mapping[str, ImageSpec]
    targets: tuple[Target, ...]
    card: dict[str, Any]
    path: Path


def save_model(
    path: Path,
    network: EspMedSam,
    specs: Mapping[str, ImageSpec],
    options: Mapping[str, Any],
    card: Mapping[str, Any] | None = None,
    *,
    half: bool = True,
) -> Path:
    """Write `model.pt` and `model.json`, each whole or not at all.

    Args:
        path: of `model.pt`; the JSON file gets the same stem.
        network: to be stored.
        specs: an `ImageSpec` for each modality name.
        options: keyword arguments that build the network again: `encoder`, `decoder` ...
        card: further entries of `model.json`.
        half: store floating point weights in 16 bits.

    Returns:
        `path`.
    """
    state = {k: _stored(v, half) for k, v in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    content = {
        "format": FORMAT,
        "network": dict(options),
        "specs": {name: spec.to_json() for name, spec in specs.items()},
        "targets": [t.to_json() for t in network.targets],
        "sha256": sha256_of(part),
        **(card or {}),
    }
    meta = path.with_suffix(".json.part")
    meta.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    meta.replace(path.with_suffix(".json"))
    return path


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if half and value.dtype == torch.float32 else value


def load_model(path: Path | str, device: torch.device | str = "cpu") -> LoadedModel:
    """The model of a `model.pt`, a training run's folder or a bundle's folder.

    Raises:
        WeightsError: a file is missing, damaged, of another version, or the weights do not fit the network.
    """
    file = find_model(Path(path))
    card = read_card(file)
    state = load_state(file, card.get("sha256"))
    network, specs = _described(card, file.with_suffix(".json"))
    fit_weights(network, state, file)
    network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return LoadedModel(network, specs, network.targets, card, file)


def _described(card: Mapping[str, Any], meta: Path) -> tuple[EspMedSam, dict[str, ImageSpec]]:
    """The network, with no weights yet, and the specs that a description asks for."""
    try:
        specs = {name: ImageSpec.from_json(values) for name, values in card["specs"].items()}
        network = EspMedSam(**{**card["network"], "targets": targets_from_json(card["targets"])})
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        raise WeightsError(
            f"{meta}: describes no network of this package ({error}). Restore it from where the model came from."
        ) from error
    for name in network.modalities:
        divisor = network.encoder.size_divisor
        if name not in specs or specs[name].size % divisor:
            found = f"of size {specs[name].size}" if name in specs else "missing"
            raise WeightsError(
                f"{meta}: ImageSpec of {name} is {found}, expected one with a size that is a multiple of {divisor}. "
                "Restore it from where the model came from."
            )
    return network, specs


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


def load_state(file: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """A state dict, loaded without running any code that the file may hold.

    Raises:
        WeightsError: missing, damaged, wrong checksum, or a pickle that wants to run code.
    """
    state, _ = read_plain(file, sha256)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(
            f"{file}: holds no plain state dict of tensors. Export the network's state_dict alone."
        )
    return state


def fit_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    file: Path,
    remedy: str = "Use the model.json they came with.",
) -> None:
    """Load a state dict strictly, and say the first wrong keys if it does not fit.

    Args:
        network: gets the weights, all or none.
        state: from the file.
        file: named in the error.
        remedy: what the error tells to do.

    Raises:
        WeightsError: missing, unexpected or reshaped entries.
    """
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shaped = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or extra or shaped:
        raise WeightsError(
            f"{file}: weights do not fit {type(network).__name__}: {len(missing)} missing {missing[:3]}, {len(extra)} "
            f"unexpected {extra[:3]}, {len(shaped)} of other shape {shaped[:3]}. {remedy}"
        )
    network.load_state_dict(dict(state))


def find_model(path: Path) -> Path:
    """The file of weights that a path means: itself, or the `model.pt` of a run or a bundle.

    Raises:
        WeightsError: there is none.
    """
    for file in (path, path / "model.pt", path / "models" / "model.pt"):
        if file.is_file():
            return file
    raise WeightsError(
        f"{path}: no model here, expected a model.pt, or a run or bundle folder that holds one."
    )
