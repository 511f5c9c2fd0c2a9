# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""State dicts of the ESP-MedSAM release and of MobileSAM, to ours and back: pure functions on names and tensors.

The release holds one controller a file, with a full copy of everything else; here one network holds all
controllers. A network of the release's arithmetic:

    EspMedSam({"name": "tiny_vit"}, six_targets, **RELEASE_OPTIONS)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_effsam.errors import WeightsError
from monai_effsam.specs import ImageSpec

__all__ = [
    "RELEASE_MODALITIES",
    "RELEASE_OPTIONS",
    "encoder_from_mobile_sam",
    "from_release",
    "release_spec",
    "to_release",
]

State = Mapping[str, Tensor]

RELEASE_MODALITIES: tuple[str, ...] = (
    "dermoscopy",
    "xray",
    "ultrasound",
    "fundus",
    "microscopy",
    "endoscopy",
)
"""Modality of the release's queries 0..5; its seventh query is never decoded."""

RELEASE_OPTIONS: Mapping[str, Any] = {
    "patch_per_target": False,
    "prompt_mode": "hard",
    "decoder": {"query_mode": "joint", "shared_hyper_mlp": True, "spare_queries": 1, "estimates": False},
}
"""Options of `EspMedSam` that reproduce the release's arithmetic."""

_PREFIXES = {
    "SemiTViT.": "encoder.",
    "patch_decoder.": "prompter.patch_decoder.",
    "dense_prompter.": "prompter.dense_prompter.",
    "mask_query.": "decoder.mask_query.",
    "mask_decoder.": "decoder.",
    "prompt_encoder.": "point_box.encoder.",
}
_CONTROLLER = {
    "attn.deep_QKV_embeddings_med": "key_token",
    "attn.med_attention_biases": "bias",
    "med_dah.": "expert.",
}
_CLASSIFIER = {
    "norm_head.weight": (320,),
    "norm_head.bias": (320,),
    "head.weight": (1000, 320),
    "head.bias": (1000,),
}
_RELEASE_ENTRIES = 504
_SHOWN = 3  # names in a message


def release_spec(*, legacy_norm: bool = True) -> ImageSpec:
    """The input of the release: 1024 x 1024, stretched.

    Args:
        legacy_norm: divide by the mean instead of the standard deviation. The released code does, by mistake, so
            the published checkpoints want it; False gives segment-anything's values.
    """
    mean = (123.675 / 255, 116.28 / 255, 103.53 / 255)
    return ImageSpec(1024, mean=mean, std=mean if legacy_norm else (58.395 / 255, 57.12 / 255, 57.375 / 255))


def encoder_from_mobile_sam(state: State, *, keep_classifier: bool = False) -> dict[str, Tensor]:
    """The image encoder of a MobileSAM checkpoint, as `TinyVitEncoder(modalities=0)` names it.

    Args:
        state: a whole checkpoint (`image_encoder.*` among others) or the encoder's entries alone.
        keep_classifier: keep `norm_head` and `head`, for an encoder built `with_classifier`.

    Raises:
        WeightsError: there is no TinyViT in the file.
    """
    prefix = "image_encoder." if any(k.startswith("image_encoder.") for k in state) else ""
    found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if "patch_embed.seq.0.c.weight" not in found:
        raise WeightsError(
            f"encoder_from_mobile_sam: first entries are {_some(state)}, expected TinyViT's"
            " 'patch_embed.seq.0.c.weight', bare or under 'image_encoder.'. Choose a MobileSAM checkpoint."
        )
    dropped = () if keep_classifier else tuple(_CLASSIFIER)
    return {k: v for k, v in found.items() if k not in dropped and not k.endswith("attention_bias_idxs")}


def from_release(
    states: Sequence[State], *, indices: Sequence[int] | None = None, keep_classifier: bool = False
) -> dict[str, Tensor]:
    """One `EspMedSam` state from files of the release, the controller of each under its own index.

    Args:
        states: one or more release files.
        indices: modality index of each; default 0, 1, ...
        keep_classifier: keep the unused ImageNet classifier, for an encoder built `with_classifier`.

    Returns:
        Every entry of a network of `RELEASE_OPTIONS`, with a neutral calibration of presence.

    Raises:
        WeightsError: names that no release file has, or files that differ outside their controllers.
    """
    merged: dict[str, Tensor] = {}
    for index, state in zip(range(len(states)) if indices is None else indices, states, strict=True):
        ours = {_from_name(name, index): tensor for name, tensor in state.items()}
        other = [k for k in ours.keys() & merged.keys() if not torch.equal(ours[k], merged[k])]
        if other:
            raise WeightsError(
                f"from_release: file {index} differs from those before it in {len(other)} shared entries {_some(other)}"
                ", expected files that share all but the controller. Load it as a network of its own."
            )
        merged.update(ours)
    if not keep_classifier:
        merged = {k: v for k, v in merged.items() if k.removeprefix("encoder.") not in _CLASSIFIER}
    count = len(RELEASE_MODALITIES)
    return merged | {"presence_scale": torch.ones(count), "presence_shift": torch.zeros(count)}


def to_release(state: State, modality: int) -> dict[str, Tensor]:
    """The release's file for one modality, from the state of a network of `RELEASE_OPTIONS`.

    A classifier that the network does not carry is written as zeros: the release wants the entries, and never
    computes with them.

    Args:
        state: state dict of an `EspMedSam`.
        modality: whose controller the file holds.

    Raises:
        WeightsError: the network has parts that the release has not, or lacks the controller.
    """
    out = {f"SemiTViT.{name}": torch.zeros(shape) for name, shape in _CLASSIFIER.items()}
    for name, tensor in state.items():
        foreign = re.search(r"\.controllers\.(\d+)\.", name)
        if name.startswith("presence_") or (foreign and int(foreign[1]) != modality):
            continue
        out[_to_name(name, modality)] = tensor
    if len(out) != _RELEASE_ENTRIES or not any("med_dah" in name for name in out):
        raise WeightsError(
            f"to_release: network gives {len(out)} entries for modality {modality}, expected {_RELEASE_ENTRIES}."
            " Only a TinyViT network built with RELEASE_OPTIONS and tied tokens has the release's layout."
        )
    return out


def _some(names: Mapping[str, Any] | Sequence[str]) -> str:
    return str(sorted(names)[:_SHOWN])


def _from_name(name: str, index: int) -> str:
    for theirs, ours in _PREFIXES.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            break
    else:
        raise WeightsError(
            f"from_release: entry '{name}' is unknown, expected names under {', '.join(_PREFIXES)}."
            " Choose a checkpoint of the ESP-MedSAM release."
        )
    for theirs, ours in _CONTROLLER.items():
        name = re.sub(rf"(blocks\.\d+\.){re.escape(theirs)}", rf"\g<1>controllers.{index}.{ours}", name)
    return name


def _to_name(name: str, index: int) -> str:
    for theirs, ours in _CONTROLLER.items():
        name = name.replace(f".controllers.{index}.{ours}", f".{theirs}")
    for theirs, ours in _PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise WeightsError(
        f"to_release: entry '{name}' has no place in the release, expected names under"
        f" {', '.join(_PREFIXES.values())}. Build the network with RELEASE_OPTIONS."
    )
