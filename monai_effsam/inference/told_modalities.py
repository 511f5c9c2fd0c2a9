# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""MONAI's view of the modality router: slices to logits, logits to a file of answers; for the bundle."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.inferers import Inferer
from torch import Tensor

from monai_effsam.checkpoints.classifier_file import LoadedClassifier
from monai_effsam.data.io import write_bytes
from monai_effsam.data.routing.pictures import middle_slices
from monai_effsam.data.transforms.fit import fitted_of
from monai_effsam.inference.router import SLICES, RoutingRule

__all__ = ["ModalityFile", "SliceLogits"]

log = logging.getLogger(__name__)


class SliceLogits(Inferer):
    """A picture (1, 3, S, S) or a stack (1, 3, N, S, S) to the logits of some middle slices, (1, n, K)."""

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Logits of one item."""
        slices = inputs[0].movedim(1, 0) if inputs.ndim == 5 else inputs
        logits: Tensor = network(slices[middle_slices(len(slices), SLICES)])
        return logits[None]


class ModalityFile:
    """Handler that writes `modalities.json`: the name of each image -> modality and probability.

    Args:
        output_dir: made if it is missing.
        model: the classifier, which tells how logits become an answer.
        key: of the logits.
        fitted: key of the image that went through `FitToSpecd`.

    Raises:
        WeightsError: the classifier is no modality router.
    """

    def __init__(
        self, output_dir: Path | str, model: LoadedClassifier, key: str = "pred", fitted: str = "image"
    ) -> None:
        self.file, self.key, self.fitted = Path(output_dir) / "modalities.json", key, fitted
        self.rule = RoutingRule.of(model.card)
        self.told: dict[str, dict[str, Any]] = {}

    def attach(self, engine: Engine) -> None:
        """Listen after every iteration, write at the end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, lambda _: self.write())

    def __call__(self, engine: Engine) -> None:
        """Take the answers of the engine's current batch."""
        for item, answer in zip(engine.state.batch, engine.state.output, strict=True):  # type: ignore[call-overload]
            image = fitted_of(item, self.fitted).image
            probability = self.rule.probabilities(answer[self.key].cpu().numpy())
            modality, sure = self.rule.answer(probability)
            self.told[str(image.path.name)] = {"modality": modality, "probability": round(sure, 4)}
            log.info("%s -> %s, %.2f", image.path, modality, sure)

    def write(self) -> None:
        """The file, whole."""
        write_bytes(self.file, (json.dumps(self.told, indent=1) + "\n").encode())
