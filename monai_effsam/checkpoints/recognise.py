# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a checkpoint is, told from its keys and shapes: wrappers taken off, the network's options read off.

The keys of the layouts were read in the authors' public code; each net that is known but not built here is refused
with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_effsam.checkpoints.families import FAMILIES, OWN_FAMILY
from monai_effsam.errors import WeightsError
from monai_effsam.networks.encoders.sam_vit import SAM_VITS

__all__ = ["Layout", "plain_state", "recognise", "without_unused"]

State = Mapping[str, Tensor]

_WRAPPERS = ("model", "state_dict")
_PREFIXES = ("module.", "_orig_mod.")  # of data-parallel and of compiled networks
_SHOWN = 3  # keys in a message

_OWN_KEY = "point_box.encoder.pe_layer.positional_encoding_gaussian_matrix"
_TINY_STEM = "image_encoder.patch_embed.seq.0.c.weight"
_REPVIT_STEM = "image_encoder.features.0.0.c.weight"
_POSITIONS = "image_encoder.pos_embed"
_EDGE_SAM_STEM = 24  # channels of the first convolution; RepViT-SAM has 40
_UNUSED = re.compile(
    r"image_encoder\.(norm_head|head)\.(weight|bias)|.*\.attn\.(ab|attention_bias_idxs)|pixel_(mean|std)"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """What keys and shapes tell.

    Args:
        name: `vit_b`, `vit_l`, `vit_h`, `vit` of another size, `tiny_vit` (1024 px), `tiny_vit_256` or `esp_medsam`.
        families: those whose files look so, the likeliest first.
        size: model size [px]; 0 where a description beside the file tells.
        encoder: options of `build_encoder`.
    """

    name: str
    families: tuple[str, ...]
    size: int = 0
    encoder: Mapping[str, Any] = field(default_factory=dict)


def plain_state(content: Any, file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name: out of `model` or `state_dict`, without `module.` or `_orig_mod.`.

    Raises:
        WeightsError: there is no dictionary of tensors.
    """
    for _ in _WRAPPERS:
        inner = [
            content[k] for k in _WRAPPERS if isinstance(content, dict) and isinstance(content.get(k), dict)
        ]
        content = inner[0] if inner else content
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(v, Tensor) for v in content.values())
    ):
        raise WeightsError(
            f"{file}: holds no plain state dict of tensors, expected one, bare or under 'model'. "
            "Export the network's state_dict alone."
        )
    state = dict(content)
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            if all(k.startswith(prefix) for k in state):
                state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


def without_unused(state: State) -> dict[str, Tensor]:
    """The entries that take part: TinyViT's ImageNet classifier, cached biases and pixel statistics left out.

    MobileSAM and TinySAM store a classifier (321,640 parameters) that no forward pass of theirs reads.
    """
    return {k: v for k, v in state.items() if not _UNUSED.fullmatch(k)}


def recognise(state: State, file: Path) -> Layout:
    """The layout of a state dict.

    Args:
        state: names without wrappers, see `plain_state`.
        file: named in errors.

    Raises:
        WeightsError: a network that is not built here, with the reason, or keys of none that is known.
    """
    refusal = _refusal(state)
    if refusal:
        raise WeightsError(f"{file}: is {refusal}. Choose a checkpoint of {_known()}.")
    if _OWN_KEY in state:
        return Layout("esp_medsam", (OWN_FAMILY,))
    if _is_kernel(state, _TINY_STEM):
        if state[_TINY_STEM].shape[-2:] == (1, 1):
            return Layout("tiny_vit_256", ("lite_medsam",), 256, {"name": "tiny_vit", "stem_stride": 1})
        return Layout("tiny_vit", ("mobile_sam", "tiny_sam"), 1024, {"name": "tiny_vit"})
    if _POSITIONS in state and state[_POSITIONS].ndim == 4:
        return _vit(state, file)
    raise WeightsError(
        f"{file}: first keys are {sorted(state)[:_SHOWN]}, expected those of a checkpoint of {_known()}. "
        "Give the whole network's weights, not one part's."
    )


def _is_kernel(state: State, key: str) -> bool:
    """Whether the entry is there and is that of a convolution."""
    return key in state and state[key].ndim == 4


def _known() -> str:
    return ", ".join(family.title for family in FAMILIES.values()) + " or this package"


def _refusal(state: State) -> str:
    """What a checkpoint is and why it cannot be used, or "" for one that may be."""
    if "image_encoder.blocks.0.Adapter.norm.weight" in state:
        return (
            "of SAM-Med2D, expected no adapters: its encoder has one in every block, which are not built here"
        )
    if _POSITIONS in state and state[_POSITIONS].ndim == 3:
        return "of EfficientSAM, expected SAM's prompt encoder and decoder: its own differ and are not built here"
    if _is_kernel(state, _REPVIT_STEM) and (
        state[_REPVIT_STEM].shape[0] == _EDGE_SAM_STEM or "image_encoder.fuse_stage2.weight" in state
    ):
        return (
            "of EdgeSAM, expected a ViT or TinyViT: its RepViT encoder is not built here, and its licence "
            "(S-Lab 1.0) forbids commercial use"
        )
    if _REPVIT_STEM in state:
        return "of RepViT-SAM, expected a ViT or TinyViT: its RepViT encoder is not built here"
    if any(k.startswith("image_encoder.backbone.stages.") for k in state):
        return "of EfficientViT-SAM, expected a ViT or TinyViT: its EfficientViT encoder is not built here"
    return ""


def _vit(state: State, file: Path) -> Layout:
    """A ViT of any width, depth and size: every option shows in a shape."""
    _, rows, columns, width = state[_POSITIONS].shape
    pattern = re.compile(r"image_encoder\.blocks\.\d+\.attn\.rel_pos_h")
    blocks = [k for k, v in state.items() if pattern.fullmatch(k) and v.ndim == 2 and v.numel()]
    lengths = {int(k.split(".")[2]): int(state[k].shape[0]) for k in blocks}
    heads = {int(state[k].shape[1]) for k in blocks}
    if (
        rows != columns
        or rows < 1
        or sorted(lengths) != list(range(len(lengths)))
        or len(heads) != 1
        or width % min(heads)
    ):
        raise WeightsError(
            f"{file}: ViT has positions {(rows, columns, width)} and relative positions in blocks {sorted(lengths)} "
            f"of widths {sorted(heads)}, expected a square and one width in every block. Use the file as published."
        )
    whole = 2 * rows - 1
    windows = {(length + 1) // 2 for length in lengths.values() if length != whole}
    options: dict[str, Any] = {
        "width": int(width),
        "depth": len(lengths),
        "heads": int(width) // heads.pop(),
        "global_blocks": tuple(i for i, length in sorted(lengths.items()) if length == whole),
    }
    name = next((n for n, published in SAM_VITS.items() if published == options), "vit")
    window = {"window": windows.pop()} if len(windows) == 1 else {}
    size = 16 * int(rows)
    return Layout(name, ("sam", "medsam"), size, {"name": "sam_vit", "size": size, **options, **window})
