# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One picture and one prompt through a promptable model in any runtime, every step as its weights were made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.placement import apply_spec, mask_scores
from monai_effsam.errors import UsageError
from monai_effsam.inference.runtimes.contract import PromptableRuntime, PromptArrays
from monai_effsam.specs import MaskRule, Placement, Prompts, spec_of

__all__ = ["PromptedOutline", "middle_box", "outline_prompted", "placed_outline"]


@dataclass(frozen=True, slots=True)
class PromptedOutline:
    """What a prompt outlines; M is 3 with `multimask`, else 1.

    Args:
        masks: (M, H, W), in the geometry of the picture.
        quality: (M,) the network's own estimate of IoU; a regression, so it may leave 0..1.
        scores: (M, H, W), above 0 in the mask; logits, or probabilities less 0.5, as the spec's `mask_rule` says.
    """

    masks: NDArray[np.bool_]
    quality: NDArray[np.float32]
    scores: NDArray[np.float32]


def outline_prompted(
    runtime: PromptableRuntime,
    rgb: NDArray[np.uint8],
    prompts: Prompts,
    *,
    modality: str | None = None,
    multimask: bool = False,
) -> PromptedOutline:
    """Outline what points and a box show in a picture: `Segmenter` with scores, and with several masks if wanted.

    Args:
        runtime: of a promptable model.
        rgb: (H, W, 3), 0..255.
        prompts: in pixels of the picture.
        modality: chooses the spec, where the model has several.
        multimask: three masks, for a prompt that may mean several things.

    Raises:
        UsageError: no prompt, or one outside the picture.
        ShapeError: not an (H, W, 3) uint8 array.
    """
    if not prompts:
        raise UsageError("outline_prompted: no prompt given, expected points or a box. Give one.")
    spec = spec_of(runtime.model.specs, modality)
    image, placement = apply_spec(rgb, spec)
    prompts.check_inside(placement.source)
    encoded = runtime.encode(image[None], 0)
    raw = runtime.outlines(encoded, PromptArrays.of(prompts, placement), multimask=multimask)
    return placed_outline(raw.mask_logits[0], raw.quality[0], placement, spec.mask_rule)


def placed_outline(
    logits: NDArray[np.float32], quality: NDArray[np.float32], placement: Placement, rule: MaskRule
) -> PromptedOutline:
    """A promptable network's answer brought back to the picture.

    Args:
        logits: (M, h, w) over the model's frame.
        quality: (M,).
        placement: how the picture lies in the frame.
        rule: the spec's `mask_rule`.
    """
    scores = mask_scores(logits, placement, rule)
    return PromptedOutline(scores > 0, quality, scores)


def middle_box(size: tuple[int, int]) -> Prompts:
    """A box around the middle half of a picture of (H, W): what is prompted where only time or a first look counts."""
    height, width = size
    x0, y0 = width // 4, height // 4
    return Prompts(box=(x0, y0, max(x0 + 1, 3 * width // 4), max(y0 + 1, 3 * height // 4)))
