# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Which kind of image is this: the modality router, for pictures whose files do not tell; ONNX Runtime or torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Image
from monai_effsam.data.placement import apply_spec
from monai_effsam.data.routing.pictures import middle_slices
from monai_effsam.errors import EffsamError, MissingExtraError, UsageError, WeightsError
from monai_effsam.inference.model_path import router_path
from monai_effsam.inference.runtimes.exported import sha256_of
from monai_effsam.specs import ANY_MODALITY, CLASSIFIER, ImageSpec

__all__ = ["SLICES", "UNKNOWN", "ModalityRouter", "RoutedModality", "RoutingRule", "shipped_router"]

UNKNOWN = "unknown"
"""What is answered to a picture that looks like none of the known modalities."""

SLICES = 5
"""Slices of a stack that are looked at, at most."""

_Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class RoutedModality(NamedTuple):
    """What the router says of a picture.

    Attributes:
        modality: a name of `targets.MODALITIES`, or `UNKNOWN`.
        probability: that this answer is right, 0..1.
    """

    modality: str
    probability: float


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """How a router's logits become an answer; from its `model.json`.

    Args:
        spec: how the network wants its input.
        modalities: K names, in the order of the logits; one for foreign pictures follows.
        temperature: that logits are divided by.
        threshold: probability of the likeliest modality under which the answer is `UNKNOWN`.
    """

    spec: ImageSpec
    modalities: tuple[str, ...]
    temperature: float
    threshold: float

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> RoutingRule:
        """The rule that a card tells.

        Raises:
            WeightsError: it describes no router.
        """
        try:
            told = card["calibration"]
            spec, names = ImageSpec.from_json(card["specs"][ANY_MODALITY]), tuple(card["classes"][:-1])
            return cls(spec, names, float(told["temperature"]), float(told["threshold"]))
        except (LookupError, TypeError, ValueError) as error:
            raise WeightsError(
                f"router: its model.json describes no modality router ({error}). Restore it, or train it again."
            ) from error

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Logits (N, K + 1) to calibrated probabilities."""
        scaled = logits.astype(np.float64) / self.temperature
        raised = np.exp(scaled - scaled.max(1, keepdims=True))
        return np.asarray(raised / raised.sum(1, keepdims=True))

    def answer(self, probability: NDArray[np.float64]) -> RoutedModality:
        """What N pictures or slices of one image, (N, K + 1), say together."""
        mean = probability.mean(0)
        best = int(mean[:-1].argmax())
        if mean[best] < self.threshold:
            return RoutedModality(UNKNOWN, float(1 - mean[best]))
        return RoutedModality(self.modalities[best], float(mean[best]))


class ModalityRouter:
    """Names the modality of pictures and stacks. Safe between threads.

    Args:
        run: images (B, 3, S, S) to logits (B, K + 1), the last of them for foreign pictures.
        card: content of the classifier's `model.json`.
        runtime: name of what computes, `onnxruntime` or `torch`.

    Raises:
        WeightsError: the card describes no router.
    """

    def __init__(self, run: _Run, card: dict[str, Any], runtime: str) -> None:
        self._run, self.card, self.runtime = run, card, runtime
        self.rule = RoutingRule.of(card)

    @classmethod
    def open(
        cls, path: Path | str | None = None, runtime: str | None = None, threads: int = 1
    ) -> ModalityRouter:
        """A router, ready to run; torch is imported only where ONNX Runtime or the exported graph is missing.

        Args:
            path: bundle or run folder, or its `model.pt`; None for the one that ships.
            runtime: `onnxruntime` or `torch`; None for the first that there is.
            threads: of the CPU.

        Raises:
            WeightsError: no router there, or a damaged one.
            UsageError: another runtime.
            MissingExtraError: the runtime asked for is not installed.
        """
        folder = _folder(Path(path) if path is not None else router_path())
        card = _read_card(folder / "model.json")
        if runtime not in (None, "onnxruntime", "torch"):
            raise UsageError(f"runtime: is '{runtime}', expected onnxruntime or torch. Choose one of them.")
        graph = folder / "model.onnx"
        if runtime == "onnxruntime" or (runtime is None and graph.is_file()):
            try:
                return cls(_onnx_run(graph, card, threads), card, "onnxruntime")
            except MissingExtraError:
                if runtime is not None:
                    raise
        return cls(_torch_run(folder / "model.pt"), card, "torch")

    def tell(self, image: Image) -> RoutedModality:
        """The modality of a picture, or of a stack by the mean over some of its middle slices."""
        return self.tell_pixels([image.rgb(index) for index in middle_slices(len(image), SLICES)])

    def tell_pixels(self, pictures: list[NDArray[np.uint8]]) -> RoutedModality:
        """The modality that pictures (H, W, 3) of one image have in common.

        Raises:
            ShapeError: a picture of another shape or type.
        """
        return self.rule.answer(self.probabilities(pictures))

    def probabilities(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Calibrated probabilities (N, K + 1) of N pictures (H, W, 3), the last of them that of "unknown"."""
        images = np.stack([apply_spec(picture, self.rule.spec)[0] for picture in pictures])
        return self.rule.probabilities(self._run(images))


@cache
def shipped_router() -> ModalityRouter | None:
    """The router that ships, opened once; None where there is none, or it cannot be opened."""
    try:
        return ModalityRouter.open()
    except EffsamError:
        return None


def _folder(path: Path) -> Path:
    """The folder that holds `model.json`."""
    for folder in (path, path / "models", path.parent):
        if (folder / "model.json").is_file():
            return folder
    raise WeightsError(
        f"{path}: no router here, expected a bundle or run folder with model.json. Check the name."
    )


def _read_card(file: Path) -> dict[str, Any]:
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{file}: cannot be read ({error}). Restore it from where the router came from."
        ) from error
    if not isinstance(card, dict) or card.get("kind") != CLASSIFIER:
        raise WeightsError(
            f"{file}: describes no classifier, expected kind {CLASSIFIER}. Name a router's folder."
        )
    return card


def _onnx_run(graph: Path, card: dict[str, Any], threads: int) -> _Run:
    from monai_effsam.inference.runtimes.onnx_runtime import onnx_session

    wanted = card.get("onnx", {}).get("sha256")
    if not graph.is_file() or sha256_of(graph) != wanted:
        raise WeightsError(
            f"{graph}: is missing or not the graph that model.json names. Export the router again."
        )
    session = onnx_session(graph, "cpu", threads)
    return lambda images: np.asarray(session.run(None, {"image": images})[0])


def _torch_run(file: Path) -> _Run:
    import torch

    from monai_effsam.checkpoints.classifier_file import load_classifier

    network = load_classifier(file).network

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(images)).numpy())

    return run
