# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""PyTorch behind the `Segmenter`: any device that torch knows."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_effsam.checkpoints import LoadedModel
from monai_effsam.errors import UsageError
from monai_effsam.inference.runtimes.contract import PromptArrays, RawDecoding, RawOutlines, unprompted

__all__ = ["TorchRuntime"]


class TorchRuntime:
    """A model as it was trained, self-prompting or promptable.

    Args:
        model: from `checkpoints.load_model`, or `load_checkpoint(...).model`; its network goes to the device.
        device: as torch names it.
        threads: of the CPU, for the whole process; None leaves torch's own choice.

    Raises:
        UsageError: torch cannot use the device; never a silent run elsewhere.
    """

    name = "torch"

    def __init__(
        self, model: LoadedModel, device: str | torch.device = "cpu", *, threads: int | None = None
    ) -> None:
        self.model = model
        self.network = cast(Any, model.network)  # typed as a contract, not as one class
        if threads:
            torch.set_num_threads(threads)
        try:
            self._place = torch.device(device)
            self.network.eval().to(self._place, memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"Segmenter: device '{device}' cannot be used ({reason}). Use 'cpu'.") from error

    @property
    def device(self) -> str:
        """Where it computes."""
        return str(self._place)

    @property
    def threads(self) -> int:
        """CPU threads of the process."""
        return torch.get_num_threads()

    @torch.inference_mode()
    def encode(self, images: NDArray[np.float32], modality: int) -> Any:
        """(B, 3, S, S) -> the network's `Encoded`."""
        batch = torch.from_numpy(images).to(self._place, memory_format=torch.channels_last)
        if self.model.promptable:
            return self.network.encode(batch)
        numbers = torch.full((len(images),), modality, dtype=torch.int64, device=self._place)
        return self.network.encode(batch, numbers)

    @torch.inference_mode()
    def decode(self, encoded: Any, modality: int, prompt: PromptArrays | None = None) -> RawDecoding:
        """Masks of all targets of a modality, of a promptable model the prompted one."""
        if self.model.promptable:
            if prompt is None:
                raise unprompted(self.model.path)
            return self.outlines(encoded, prompt).as_decoding()
        decoded = self.network.decode(encoded, modality, **self._tensors(prompt))
        parts = (decoded.mask_logits, decoded.quality, decoded.presence)
        return RawDecoding(*(part.float().cpu().numpy() for part in parts))

    @torch.inference_mode()
    def outlines(self, encoded: Any, prompt: PromptArrays, *, multimask: bool = False) -> RawOutlines:
        """Masks of one prompt on each image, three of them with `multimask`; promptable models only."""
        given = {name: value[:, None] for name, value in self._tensors(prompt).items()}  # one prompt an image
        found = self.network.decode(encoded, **given, multimask=multimask)
        parts = (found.mask_logits[:, 0], found.quality[:, 0])
        return RawOutlines(*(part.float().cpu().numpy() for part in parts))

    def _tensors(self, prompt: PromptArrays | None) -> dict[str, Tensor]:
        """A prompt as the networks' `decode` takes it."""
        given: dict[str, Tensor] = {}
        if prompt is not None and prompt.points is not None and prompt.labels is not None:
            given["points"] = torch.from_numpy(prompt.points).to(self._place)
            given["labels"] = torch.from_numpy(prompt.labels).to(self._place)
        if prompt is not None and prompt.box is not None:
            given["boxes"] = torch.from_numpy(prompt.box).to(self._place)
        return given
