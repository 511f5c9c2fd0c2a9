# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a model costs: bytes, parameters, arithmetic for one picture of each modality."""

from __future__ import annotations

from typing import Any, cast

import torch

from monai_effsam.checkpoints import LoadedModel
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.metrics.complexity import count_macs, count_parameters
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ANY_MODALITY

__all__ = ["gmacs_of", "model_cost"]


def model_cost(model: LoadedModel) -> dict[str, Any]:
    """Size of a model and its multiply-accumulates, encoder and decoder; a promptable one gets a box, others none.

    Returns:
        `file_mb` [10^6 bytes], `parameters_m` [10^6], `encoder_parameters_m` where the network has an encoder, and
        for each modality (`any` where the spec is that of all) `size` [px] and `gmacs` [10^9] of one picture.
    """
    network = model.network
    encoder = getattr(network, "image_encoder" if model.promptable else "encoder", None)
    cost: dict[str, Any] = {
        "file_mb": round(model.path.stat().st_size / 1e6, 1),
        "parameters_m": round(count_parameters(network) / 1e6, 2),
    }
    if encoder is not None:
        cost["encoder_parameters_m"] = round(count_parameters(encoder) / 1e6, 2)
    cost["modalities"] = {
        name or "any": {"size": model.specs[name].size, "gmacs": round(_macs(model, number, name) / 1e9, 2)}
        for number, name in enumerate(_names(model))
    }
    return cost


def gmacs_of(segmenter: Segmenter) -> float | None:
    """Multiply-accumulates [10^9] of one picture, encoder and decoder, of the modality that takes the most.

    Args:
        segmenter: of an exported model those that its manifest tells.

    Returns:
        None where nobody tells.
    """
    model: Any = segmenter.model
    known = isinstance(getattr(model, "network", None), EspMedSam | PromptableSam)
    cost = model_cost(model) if known else model.card.get("cost", {})
    return max((entry["gmacs"] for entry in cost.get("modalities", {}).values()), default=None)


def _names(model: LoadedModel) -> tuple[str, ...]:
    """Those of the specs, in the network's order."""
    if model.promptable:
        return tuple(dict.fromkeys((ANY_MODALITY, *model.specs)))
    return tuple(dict.fromkeys(target.modality for target in model.targets))


def _macs(model: LoadedModel, number: int, name: str) -> int:
    network, size = cast(Any, model.network), model.specs[name].size
    device = next(model.network.parameters()).device
    image = torch.zeros(1, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    if model.promptable:
        box = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]], device=device)  # one costs as much as another
        return count_macs(lambda: network.decode(network.encode(image), boxes=box))
    modality = torch.tensor([number], device=device)
    return count_macs(lambda: network.decode(network.encode(image, modality), number))
