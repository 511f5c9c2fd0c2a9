# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What every runtime offers behind `Segmenter`: arrays in, arrays out, whatever computes in between."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import UsageError
from monai_effsam.specs import ImageSpec, Placement, Prompts
from monai_effsam.targets import MODALITIES, Target

__all__ = [
    "ModelFacts",
    "PromptArrays",
    "PromptableRuntime",
    "RawDecoding",
    "RawOutlines",
    "Runtime",
    "known_modalities",
    "unprompted",
]


class ModelFacts(Protocol):
    """What is known of a model apart from its arithmetic; `LoadedModel` and `ExportedModel` both tell it.

    Attributes:
        specs: an `ImageSpec` for each modality name; of a promptable model under "" that of all others.
        targets: the target table; its modalities, in order of appearance, are those of a self-prompting network.
        promptable: whether it outlines what it is prompted for, and nothing by itself.
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
    def promptable(self) -> bool:
        """Whether it outlines what it is prompted for, and nothing by itself."""

    @property
    def card(self) -> dict[str, Any]:
        """Its description."""

    @property
    def path(self) -> Path:
        """Of the file that holds or describes it."""


class PromptArrays(NamedTuple):
    """A user's prompt in pixels of the model's frame of prompts, one image.

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


class RawOutlines(NamedTuple):
    """A promptable network's answer for one prompt an image, float32; M is 3 or 1.

    Attributes:
        mask_logits: (B, M, h, w) over the model's frame.
        quality: estimated IoU, (B, M); a regression, so it may leave 0..1.
    """

    mask_logits: NDArray[np.float32]
    quality: NDArray[np.float32]

    def as_decoding(self) -> RawDecoding:
        """The same as an answer for targets: quality cut to 0..1, and all of them there, since a user says so."""
        return RawDecoding(self.mask_logits, self.quality.clip(0, 1), np.ones_like(self.quality))


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
        """(B, 3, S, S) images of one modality, an index among the table's (0 if promptable), to what `decode` takes."""

    def decode(self, encoded: Any, modality: int, prompt: PromptArrays | None = None) -> RawDecoding:
        """Masks of all targets of that modality, of a promptable model the prompted one; with a prompt, B is 1."""


class PromptableRuntime(Runtime, Protocol):
    """A promptable model on one device."""

    def outlines(self, encoded: Any, prompt: PromptArrays, *, multimask: bool = False) -> RawOutlines:
        """Masks of one prompt on each image, three of them with `multimask`."""


def known_modalities(
    targets: Iterable[Target], specs: Iterable[str] = (), *, promptable: bool = False
) -> tuple[str, ...]:
    """Names that a modality may have: those of the target table; of a promptable model any, if only we know it.

    Args:
        targets: the model's target table.
        specs: modalities that have an `ImageSpec` of their own.
        promptable: whether a modality chooses no more than a spec and names.
    """
    more = (*filter(None, specs), *MODALITIES) if promptable else ()
    return tuple(dict.fromkeys((*(target.modality for target in targets), *more)))


def unprompted(model: Path) -> UsageError:
    """What is wrong with a request that gives a promptable model no prompt.

    Args:
        model: its path.
    """
    return UsageError(
        f"{model}: this model outlines what it is prompted for, expected a prompt. Give --box or --point."
    )
