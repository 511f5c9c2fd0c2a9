# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One request that prompts: its image, the model that answers it, and what the outline is called."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monai_effsam.inference.modality import ToldModality
from monai_effsam.inference.propagation import SliceOutline
from monai_effsam.labelling.answers import LabellingAnswer, seconds_of
from monai_effsam.labelling.images import OpenedImage
from monai_effsam.labelling.models import EncodingDesk, ServedModel
from monai_effsam.specs import Prompts
from monai_effsam.targets import OBJECT, Target

__all__ = ["PromptedImage"]


@dataclass
class PromptedImage:
    """Lives as long as its request.

    Args:
        desk: encodes and decodes.
        model: that answers.
        opened: image, cut as the prompts are about it.
        told: the modality that the model is told, and by whom.
        label: what the user calls the object.
        ms: time spent, by stage [ms].
    """

    desk: EncodingDesk
    model: ServedModel
    opened: OpenedImage
    told: ToldModality
    label: str | None
    ms: dict[str, float]
    _named: list[Target] = field(default_factory=list)

    def outline(self, index: int, prompts: Prompts) -> SliceOutline:
        """What a prompt shows in one slice."""
        encoding = self.desk.encoding(self.model, self.opened, index, self.told.modality, self.ms)
        part = self.desk.decoding(self.model, encoding, self.ms, targets=self._targets(), prompts=prompts)
        self._named[:] = part.targets
        return SliceOutline(part.mask[0] > 0, float(part.quality[0, 0]), float(part.presence[0, 0]))

    def answer(self, mask: NDArray[np.uint8], quality: float | None, start: float) -> LabellingAnswer:
        """The answer to the request.

        Args:
            mask: (N, H, W), 1 where the object is.
            quality: of the outline; None where nothing was prompted.
            start: when the request began, by `time.perf_counter`.
        """
        name = self.label or (self._named[0].name if self._named else OBJECT.name)
        return LabellingAnswer(
            self.opened,
            mask,
            {name: 1} if mask.any() else {},
            {} if quality is None else {name: round(quality, 4)},
            seconds_of(self.ms, start),
            self.told,
        )

    def _targets(self) -> tuple[str, ...] | None:
        """The model's target of the label, if it has one; a self-prompting model outlines nothing else."""
        table = [
            t.name for t in self.model.segmenter.model.targets if self.told.modality in (None, t.modality)
        ]
        if self.label in table:
            return (self.label,)
        return None if self.model.segmenter.promptable else tuple(table[:1])
