# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""MONAI's view of the network: image tensor in, mask logits out; for bundles and their evaluators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch import Tensor

from monai_effsam.data.transforms import Fitted, first_choice
from monai_effsam.errors import UsageError
from monai_effsam.inference.runtimes.contract import PromptArrays
from monai_effsam.inference.segmenter import PRESENT
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.networks.nets.esp_medsam import ABSENT_LOGIT
from monai_effsam.specs import Prompts
from monai_effsam.targets import check_modality

__all__ = ["PromptedInferer", "SelfPromptingInferer"]


class SelfPromptingInferer(Inferer):
    """Mask logits of one modality's targets, without a prompt; a target that is not there gets logits of -20.

    Args:
        modality: name, used where a call does not give one; of a list, the first.
        batch_size: slices that go through the network together.
    """

    def __init__(self, modality: str | Sequence[str] | None = None, *, batch_size: int = 4) -> None:
        super().__init__()
        self.modality = first_choice(modality)
        self.batch_size = batch_size

    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Any],
        modality: str | Sequence[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """(1, 3, S, S) -> (1, T_m, h, w), a stack (1, 3, N, S, S) -> (1, T_m, N, h, w).

        Args:
            inputs: one image as its `ImageSpec` wants it.
            network: an `EspMedSam`.
            modality: name of the image's modality, alone or as a batch of one.
            args: ignored, for MONAI's sake.
            kwargs: ignored, for MONAI's sake.

        Raises:
            UsageError: a batch of several images, another network, or no modality.
            UnknownNameError: the network does not know the modality.
        """
        if not isinstance(network, EspMedSam):
            raise UsageError(
                f"SelfPromptingInferer: network is {type(network).__name__}, expected EspMedSam."
            )
        if inputs.shape[0] != 1:
            raise UsageError(f"SelfPromptingInferer: {inputs.shape[0]} images in a batch, expected 1.")
        name = first_choice(modality) or self.modality
        if not name:
            raise UsageError(
                "SelfPromptingInferer: no modality is given. Set it on the inferer or in each call."
            )
        check_modality(name, network.modalities)
        number = network.modalities.index(name)
        image = (
            inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs
        )  # a MetaTensor slows every layer
        slices = image[0].transpose(0, 1) if image.ndim == 5 else image  # (N, 3, S, S)
        parts = [self._masks(part, network, number) for part in slices.split(self.batch_size)]
        logits = torch.cat(parts)  # (N, T_m, h, w)
        return logits.transpose(0, 1)[None] if image.ndim == 5 else logits

    @staticmethod
    def _masks(slices: Tensor, network: EspMedSam, number: int) -> Tensor:
        batch = slices.contiguous(memory_format=torch.channels_last)
        encoded = network.encode(batch, torch.full((len(batch),), number, device=batch.device))
        found = network.decode(encoded, number)
        absent = (found.presence < PRESENT)[:, :, None, None]
        return found.mask_logits.masked_fill(absent, ABSENT_LOGIT)


class PromptedInferer(Inferer):
    """Mask logits of what a box or points show, in one picture.

    Args:
        box: (x0, y0, x1, y1) in pixels of the picture, or the like as text, used where a call does not bring prompts.
        points: (x, y) each, likewise.
        labels: 1 inside, 0 outside, one a point; all inside by default.
    """

    def __init__(
        self,
        box: Sequence[float] | str | None = None,
        points: Sequence[Sequence[float]] | None = None,
        labels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        places = tuple((float(x), float(y)) for x, y in points or ())
        self.prompts = Prompts(places, (1,) * len(places) if labels is None else tuple(labels), _corners(box))

    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Any],
        fitted: Any = None,
        prompts: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """(1, 3, S, S) -> (1, 1, h, w).

        Args:
            inputs: one picture as its `ImageSpec` wants it.
            network: a `PromptableSam`.
            fitted: of `FitToSpecd`, alone or as a batch of one; None where the tensor's `meta` carries it.
            prompts: `Prompts` in pixels of the picture, alone or as a batch of one; None for the inferer's own.
            args: ignored, for MONAI's sake.
            kwargs: ignored, for MONAI's sake.

        Raises:
            UsageError: another network, several pictures, slices of a volume, no prompt, or one outside the picture.
        """
        if not isinstance(network, PromptableSam):
            raise UsageError(f"PromptedInferer: network is {type(network).__name__}, expected PromptableSam.")
        if inputs.shape[0] != 1 or inputs.ndim != 4:
            raise UsageError(
                f"PromptedInferer: input has shape {tuple(inputs.shape)}, expected (1, 3, S, S). Prompt one 2D image."
            )
        place = _alone(fitted) or getattr(inputs, "meta", {}).get("fitted")
        if not isinstance(place, Fitted):
            raise UsageError(
                f"PromptedInferer: fitted is {type(place).__name__}, expected what FitToSpecd leaves. Hand it in."
            )
        given = _alone(prompts) or self.prompts
        if not given:
            raise UsageError("PromptedInferer: no prompt is given, expected a box or points. Give one.")
        given.check_inside(place.placement.source)
        arrays = PromptArrays.of(given, place.placement)
        image = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs
        tensors = (None if a is None else torch.from_numpy(a).to(image.device)[:, None] for a in arrays)
        points, labels, boxes = tensors
        encoded = network.encode(image.contiguous(memory_format=torch.channels_last))
        return network.decode(encoded, points=points, labels=labels, boxes=boxes).mask_logits[:, 0]


def _corners(box: Sequence[float] | str | None) -> tuple[float, float, float, float] | None:
    """A box as four numbers; None for none, or for the empty text of a viewer's option."""
    values = box.replace(",", " ").split() if isinstance(box, str) else box
    if values is None or len(values) == 0:
        return None
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
    except (TypeError, ValueError):
        raise UsageError(f"PromptedInferer: box is {box!r}, expected x0,y0,x1,y1 in pixels.") from None
    return x0, y0, x1, y1


def _alone(value: Any) -> Any:
    """What a batch of one holds; an object that `collate_one` wrapped is unwrapped."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
