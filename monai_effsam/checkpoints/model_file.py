# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Model files of this package: `model.pt`, a plain state dict, and `model.json` beside it, all that it needs to run.

`model.json` holds the kind of model, the network's options, an `ImageSpec` for each modality, the target table, the
sha256 of `model.pt` and whatever else belongs on a model card (data, terms, recipe, metrics). The `ImageSpec` under ""
of a promptable model is that of every modality which has none of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_effsam.checkpoints.description import FORMAT, build_described, read_card
from monai_effsam.checkpoints.reading import read_plain, sha256_of
from monai_effsam.errors import WeightsError
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import PROMPTABLE, SELF_PROMPTING, ImageSpec
from monai_effsam.targets import TARGETS, Target

__all__ = [
    "LoadedModel",
    "find_model",
    "fit_weights",
    "load_model",
    "load_state",
    "read_model",
    "save_model",
]


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to run, with what belongs to it.

    Args:
        network: in eval mode.
        specs: an `ImageSpec` for each modality name; of a promptable network under "" that of all others.
        targets: the target table it was trained with; of a promptable network it only names mask values.
        card: the whole of `model.json`.
        path: of `model.pt`.
    """

    network: EspMedSam | PromptableSam
    specs: Mapping[str, ImageSpec]
    targets: tuple[Target, ...]
    card: dict[str, Any]
    path: Path

    @property
    def promptable(self) -> bool:
        """Whether it outlines what it is prompted for, and nothing by itself."""
        return isinstance(self.network, PromptableSam)


def save_model(
    path: Path,
    network: EspMedSam | PromptableSam,
    specs: Mapping[str, ImageSpec],
    options: Mapping[str, Any],
    card: Mapping[str, Any] | None = None,
    *,
    targets: Sequence[Target] = TARGETS,
    half: bool = True,
) -> Path:
    """Write `model.pt` and `model.json`, each whole or not at all.

    Args:
        path: of `model.pt`; the JSON file gets the same stem.
        network: to be stored.
        specs: an `ImageSpec` for each modality name; of a promptable network one under "" for all others.
        options: keyword arguments that build the network again: `encoder`, `decoder` ..., or `image_encoder` and
            `prompt_size` of a promptable one.
        card: further entries of `model.json`.
        targets: target table of a promptable network; a self-prompting one has its own.
        half: store floating point weights in 16 bits.

    Returns:
        `path`.
    """
    state = {k: _stored(v, half) for k, v in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    promptable = isinstance(network, PromptableSam)
    content = {
        "format": FORMAT,
        "kind": PROMPTABLE if promptable else SELF_PROMPTING,
        "network": dict(options),
        "specs": {name: spec.to_json() for name, spec in specs.items()},
        "targets": [
            t.to_json() for t in (targets if isinstance(network, PromptableSam) else network.targets)
        ],
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
    model, _ = read_model(find_model(Path(path)))
    model.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def read_model(file: Path, sha256: str | None = None) -> tuple[LoadedModel, str]:
    """The model of a `model.pt`, and the file's sha256; errors as of `load_model`.

    Args:
        file: of weights, with its description beside it.
        sha256: checksum that it must have, besides the one that its description tells.
    """
    card = read_card(file)
    content, found = read_plain(file, sha256, card.get("sha256"))
    network, specs, targets = build_described(card, file.with_suffix(".json"))
    fit_weights(network, _plain(content, file), file)
    return LoadedModel(network.eval(), specs, targets, card, file), found


def load_state(file: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """A state dict, loaded without running any code that the file may hold.

    Raises:
        WeightsError: missing, damaged, wrong checksum, or a pickle that wants to run code.
    """
    return _plain(read_plain(file, sha256)[0], file)


def _plain(content: Any, file: Path) -> dict[str, Tensor]:
    """The content of a file, if it is a state dict."""
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(
            f"{file}: holds no plain state dict of tensors. Export the network's state_dict alone."
        )
    return content


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
