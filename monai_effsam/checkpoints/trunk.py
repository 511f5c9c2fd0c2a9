# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A timm network without its classifier, from a file."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from monai_effsam.errors import UnknownNameError, WeightsError
from monai_effsam.networks.foreign import import_timm

__all__ = ["load_timm_trunk"]


def load_timm_trunk(network: str, file: Path) -> nn.Module:
    """A timm network that gives pooled features (B, C), in eval mode.

    Args:
        network: timm's name of it.
        file: safetensors with timm's names.

    Raises:
        UnknownNameError: timm has no such network.
        WeightsError: unreadable, or tensors that are missing, left over or of another shape.
        MissingExtraError: timm is not installed.
    """
    timm = import_timm()
    if not timm.is_model(network):
        raise UnknownNameError("timm network", network, timm.list_models(f"*{network.split('_')[0]}*")[:20])
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{file}: is no readable safetensors file ({error}), expected weights of {network}. Restore it."
        ) from error
    trunk = cast(nn.Module, timm.create_model(network, pretrained=False, num_classes=0))
    own = trunk.state_dict()
    shapes, found = (
        {k: v.shape for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
        for tensors in (own, state)
    )
    wrong = [k for k in {**shapes, **found} if shapes.get(k) != found.get(k)]
    if wrong:
        raise WeightsError(
            f"{file}: {len(wrong)} tensors do not fit {network}, such as {wrong[0]}. Name the network of the weights."
        )
    trunk.load_state_dict(state, strict=False)
    return trunk.eval()
