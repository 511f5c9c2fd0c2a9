# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""MONAI's view of the network: image tensor in, mask logits out; for bundles and their evaluators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from monai_effsam.data.transforms import first_choice
from monai_effsam.errors import UsageError
from monai_effsam.inference.segmenter import PRESENT
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.networks.nets.esp_medsam import ABSENT_LOGIT
from monai_effsam.targets import check_modality

__all__ = ["SelfPromptingInferer"]


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
