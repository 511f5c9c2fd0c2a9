# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Weights of one target table for another: what is shared as it is, what targets and modalities own by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_effsam.targets import Target

__all__ = ["promptable_weights", "self_prompting_weights", "transfer_weights"]

_PROMPTABLE = {
    "encoder.": "image_encoder.",
    "point_box.encoder.": "prompt_encoder.",
    "decoder.transformer.": "mask_decoder.transformer.",
}
"""Prefix of a part of the self-prompting network -> of the like part of a promptable one."""

_POSITIONS = re.compile(r"encoder\.(?:pos_embed|blocks\.\d+\.attn\.rel_pos_[hw])")
"""Tables of a ViT whose size is that of the grid: SAM's of 1024 px are put on a smaller grid by interpolation."""

_TARGET_ROWS = (
    "decoder.mask_query.weight",
    "prompter.patch_decoder.3.weight",
    "prompter.patch_decoder.3.bias",
    "presence_scale",
    "presence_shift",
)
_TARGET_COLUMNS = ("prompter.dense_prompter.0.weight",)
_TARGET_MODULE = re.compile(r"(decoder\.output_hypernetworks_mlps\.)(\d+)(\..*)")
_MODALITY_ROWS = re.compile(r"encoder\.(?:.*\.)?(token|token_bias)$")
_MODALITY_MODULE = re.compile(r"(encoder\.(?:.*\.)?(?:experts|controllers)\.)(\d+)(\..*)")


def transfer_weights(
    own: Mapping[str, Tensor],
    own_targets: Sequence[Target],
    source: Mapping[str, Tensor],
    source_targets: Sequence[Target],
) -> tuple[dict[str, Tensor], list[str]]:
    """A state dict for a network of `own_targets`, filled from one of `source_targets`.

    Args:
        own: state of the new network; what the source lacks stays as it is here.
        own_targets: its target table.
        source: state of the trained network, of the same architecture.
        source_targets: its target table.

    Returns:
        The filled state, and the keys that could not be filled at all.
    """
    targets = _places(
        [(t.modality, t.name) for t in own_targets], [(t.modality, t.name) for t in source_targets]
    )
    modalities = _places(_modalities(own_targets), _modalities(source_targets))
    filled, missed = {}, []
    for key, value in own.items():
        new = _take(key, value, source, targets, modalities)
        filled[key] = value if new is None else new
        if new is None:
            missed.append(key)
    return filled, missed


def promptable_weights(own: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for a promptable network from another one, or from the parts that a self-prompting network shares.

    Args:
        own: state of the new network.
        source: state of the trained one.

    Returns:
        Those of the source that have a name and shape of ours.
    """
    renamed = dict(source)
    for key, value in source.items():
        for theirs, ours in _PROMPTABLE.items():
            if key.startswith(theirs):
                renamed[ours + key.removeprefix(theirs)] = value
    return {k: renamed[k] for k, v in own.items() if k in renamed and renamed[k].shape == v.shape}


def self_prompting_weights(own: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for a self-prompting network from the parts that a promptable one, SAM itself for one, shares with it.

    Args:
        own: state of the new network.
        source: state of the promptable one; learned positions of another grid are interpolated.

    Returns:
        Those of the source that have a name and shape of ours.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in source.items():
        for ours, theirs in _PROMPTABLE.items():
            if key.startswith(theirs):
                renamed[ours + key.removeprefix(theirs)] = value
    for key in renamed.keys() & own.keys():
        if _POSITIONS.fullmatch(key):
            renamed[key] = _resized_positions(renamed[key], own[key])
    return {k: renamed[k] for k, v in own.items() if k in renamed and renamed[k].shape == v.shape}


def _resized_positions(table: Tensor, like: Tensor) -> Tensor:
    """Absolute positions (1, h, w, C) or relative ones (2 n - 1, d) at the size of others; as they are if equal."""
    if table.shape == like.shape or table.ndim != like.ndim:
        return table
    if table.ndim == 4:
        size = tuple(like.shape[1:3])
        x = F.interpolate(table.float().permute(0, 3, 1, 2), size=size, mode="bicubic", antialias=True)
        return x.permute(0, 2, 3, 1).to(table.dtype)
    x = F.interpolate(table.float().T[None], size=len(like), mode="linear")  # as segment-anything does
    return x[0].T.to(table.dtype)


def _modalities(targets: Sequence[Target]) -> list[str]:
    return list(dict.fromkeys(t.modality for t in targets))


def _places(own: Sequence[object], source: Sequence[object]) -> dict[int, int]:
    """Place in our list -> place in the source's, for what both have."""
    return {i: list(source).index(name) for i, name in enumerate(own) if name in source}


def _take(
    key: str,
    value: Tensor,
    source: Mapping[str, Tensor],
    targets: Mapping[int, int],
    modalities: Mapping[int, int],
) -> Tensor | None:
    """The source's tensor for a key of ours, its rows put in our order; None if there is none that fits."""
    for pattern, places in ((_TARGET_MODULE, targets), (_MODALITY_MODULE, modalities)):
        if match := pattern.fullmatch(key):
            place = places.get(int(match[2]))
            found = None if place is None else source.get(f"{match[1]}{place}{match[3]}")
            return found if found is not None and found.shape == value.shape else None
    found = source.get(key)
    if found is None:
        return None
    if key in _TARGET_ROWS:
        return _rows(value, found, targets)
    if key in _TARGET_COLUMNS:
        return _rows(value.transpose(0, 1), found.transpose(0, 1), targets).transpose(0, 1).contiguous()
    if _MODALITY_ROWS.fullmatch(key):
        return _rows(value, found, modalities)
    return found if found.shape == value.shape else None


def _rows(own: Tensor, source: Tensor, places: Mapping[int, int]) -> Tensor:
    if len(source) == 1 == len(own):  # one patch map for all targets
        return source
    out = own.clone()
    if places:
        out[torch.tensor(list(places))] = source[torch.tensor(list(places.values()))].to(own.dtype)
    return out
