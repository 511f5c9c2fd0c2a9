# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What every runtime offers behind `Segmenter`: arrays in, arrays out, whatever computes in between."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from monai_effsam.specs import ImageSpec, Placement, Prompts
from monai_effsam.targets import Target

__all__ = ["ModelFacts", "PromptArrays", "RawDecoding", "Runtime"]


class ModelFacts(Protocol):
    """What is known of a model apart from its arithmetic; `LoadedModel` and `ExportedModel` both tell it.

    Attributes:
        specs: an `ImageSpec` for each modality name.
        targets: the target table; its modalities, in order of appearance, are the network's.
        card: its description, as on the model card.
        path: of the file that holds or describes it.
    """

    @property
    def specs(self) -> Mapping[str, ImageSpec]:
        """An `ImageSpec` for each modality name."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The target table."""

    @property
    def card(self) -> dict[str, Any]:
        """Its description."""

    @property
    def path(self) -> Path:
        """Of the file that holds or describes it."""


class PromptArrays(NamedTuple):
    """A user's prompt in model pixels, one image.

    Attributes:
        points: (1, N, 2) float32, (x, y), or None.
        labels: (1, N) int64, 1 inside, 0 outside; given with points.
        box: (1, 4) float32, (x0, y0, x1, y1), or None.
    """

    points: NDArray[np.float32] | None
    labels: NDArray[np.int64] | None
    box: NDArray[np.float32] | None

    @classmethod
    def of(cls, prompts: Prompts, placement: Placement) -> PromptArrays:
        """A prompt in source pixels, carried into the model's."""
        points = labels = box = None
        if prompts.points:
            points = np.array([placement.to_model(prompts.points)], np.float32)
            labels = np.array([prompts.labels], np.int64)
        if prompts.box is not None:
            corners = placement.to_model([prompts.box[:2], prompts.box[2:]])
            box = np.array(corners, np.float32).reshape(1, 4)
        return cls(points, labels, box)


class RawDecoding(NamedTuple):
    """The decoder's answer for the T_m targets of one modality, float32.

    Attributes:
        mask_logits: (B, T_m, h, w) over the model's frame.
        quality: estimated IoU, (B, T_m), 0..1.
        presence: probability that the target is there, (B, T_m), 0..1.
    """

    mask_logits: NDArray[np.float32]
    quality: NDArray[np.float32]
    presence: NDArray[np.float32]


class Runtime(Protocol):
    """One model on one device; `Segmenter` asks nothing more of it."""

    @property
    def name(self) -> str:
        """`torch`, `onnxruntime` or `openvino`."""

    @property
    def device(self) -> str:
        """Where it computes, such as `cpu` or `cuda:0`."""

    @property
    def threads(self) -> int:
        """CPU threads of the network."""

    @property
    def model(self) -> ModelFacts:
        """What it runs."""

    def encode(self, images: NDArray[np.float32], modality: int) -> Any:
        """(B, 3, S, S) images of one modality, an index among the table's, to what `decode` takes."""

    def decode(self, encoded: Any, modality: int, prompt: PromptArrays | None = None) -> RawDecoding:
        """Masks of all targets of that modality; with a prompt, B is 1."""
