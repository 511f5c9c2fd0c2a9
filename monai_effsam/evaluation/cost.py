# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a model costs: bytes, parameters, arithmetic for one picture of each modality."""

from __future__ import annotations

from typing import Any

import torch

from monai_effsam.checkpoints import LoadedModel
from monai_effsam.metrics.complexity import count_macs, count_parameters

__all__ = ["model_cost"]


def model_cost(model: LoadedModel) -> dict[str, Any]:
    """Size of a model and its multiply-accumulates, encoder and decoder, without a prompt.

    Returns:
        `file_mb` [10^6 bytes], `parameters_m` [10^6], `encoder_parameters_m` where the network has an encoder, and
        for each modality `size` [px] and `gmacs` [10^9] of one picture.
    """
    network = model.network
    encoder = getattr(network, "encoder", None)
    cost: dict[str, Any] = {
        "file_mb": round(model.path.stat().st_size / 1e6, 1),
        "parameters_m": round(count_parameters(network) / 1e6, 2),
    }
    if encoder is not None:
        cost["encoder_parameters_m"] = round(count_parameters(encoder) / 1e6, 2)
    cost["modalities"] = {
        name: {"size": model.specs[name].size, "gmacs": round(_macs(model, number) / 1e9, 2)}
        for number, name in enumerate(network.modalities)
    }
    return cost


def _macs(model: LoadedModel, number: int) -> int:
    network = model.network
    size = model.specs[network.modalities[number]].size
    device = next(network.parameters()).device
    image = torch.zeros(1, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    modality = torch.tensor([number], device=device)
    return count_macs(lambda: network.decode(network.encode(image, modality), number))
