# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One picture and one prompt through a promptable network, every step as its weights were made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_effsam.data.placement import apply_spec, mask_scores
from monai_effsam.errors import UsageError
from monai_effsam.networks.nets import PromptableSam
from monai_effsam.specs import ImageSpec, Placement, Prompts

__all__ = ["PromptedOutline", "outline_prompted"]


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


@torch.inference_mode()
def outline_prompted(
    network: PromptableSam,
    spec: ImageSpec,
    rgb: NDArray[np.uint8],
    prompts: Prompts,
    *,
    multimask: bool = False,
) -> PromptedOutline:
    """Outline what points and a box show in a picture, on the device where the network is.

    Args:
        network: in eval mode, with its weights.
        spec: how these weights want their input; `load_checkpoint` gives both.
        rgb: (H, W, 3), 0..255.
        prompts: in pixels of the picture.
        multimask: three masks, for a prompt that may mean several things.

    Raises:
        UsageError: no prompt, or one outside the picture.
        ShapeError: not an (H, W, 3) uint8 array.
    """
    if not prompts:
        raise UsageError("outline_prompted: no prompt given, expected points or a box. Give one.")
    image, placement = apply_spec(rgb, spec)
    prompts.check_inside(placement.source)
    device = next(network.parameters()).device
    encoded = network.encode(torch.from_numpy(image)[None].to(device))
    found = network.decode(encoded, **_tensors(prompts, placement, device), multimask=multimask)
    scores = mask_scores(found.mask_logits[0, 0].float().cpu().numpy(), placement, spec.mask_rule)
    return PromptedOutline(scores > 0, found.quality[0, 0].float().cpu().numpy(), scores)


def _tensors(prompts: Prompts, placement: Placement, device: torch.device) -> dict[str, Tensor]:
    """One prompt on one image, as `PromptableSam.decode` takes it."""
    given = {}
    if prompts.points:
        points = placement.to_model(prompts.points)
        given["points"] = torch.tensor([[points]], dtype=torch.float32, device=device)  # (1, 1, P, 2)
        given["labels"] = torch.tensor([[prompts.labels]], dtype=torch.int64, device=device)  # (1, 1, P)
    if prompts.box is not None:
        corners = placement.to_model([prompts.box[:2], prompts.box[2:]])
        given["boxes"] = torch.tensor([[sum(corners, ())]], dtype=torch.float32, device=device)  # (1, 1, 4)
    return given
