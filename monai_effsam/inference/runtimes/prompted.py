# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""An exported promptable model behind the `Segmenter`, in ONNX Runtime or OpenVINO; no torch anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.inference.runtimes.contract import PromptArrays, RawDecoding, RawOutlines, unprompted
from monai_effsam.inference.runtimes.exported import ExportedModel, prompt_tokens
from monai_effsam.inference.runtimes.machine import usable_cores

__all__ = ["PromptedGraphs"]


class PromptedGraphs:
    """Encoder and decoder of an exported promptable model.

    Args:
        model: from `read_exported`.
        runtime: `onnxruntime` or `openvino`; None for the first that the model was exported for.
        device: `cpu`, for onnxruntime also `cuda` or `cuda:N`.
        threads: of the CPU; None for one a core.

    Raises:
        UsageError: a device that the runtime cannot use.
        WeightsError: a graph is missing or damaged.
        MissingExtraError: the runtime is not installed.
    """

    def __init__(
        self,
        model: ExportedModel,
        runtime: str | None = None,
        device: str = "cpu",
        *,
        threads: int | None = None,
    ) -> None:
        self.model, self.device, self.threads = model, device, threads or usable_cores()
        self.name = runtime or next(iter(model.card["graphs"]))
        files = model.files(self.name)
        self._graphs = {role: _opened(file, self.name, device, self.threads) for role, file in files.items()}

    def encode(self, images: NDArray[np.float32], modality: int = 0) -> NDArray[np.float32]:
        """(B, 3, S, S) -> embedding (B, C, h, w); the modality is not asked."""
        return np.concatenate([self._graphs["encoder"]({"image": image[None]})[0] for image in images])

    def encode_at_once(self, images: NDArray[np.float32], modality: int = 0) -> NDArray[np.float32]:
        """As `encode`, in one pass; one by one is as fast on a CPU, and needs less memory."""
        return np.asarray(self._graphs["encoder"]({"image": images})[0])

    def decode(
        self, encoded: NDArray[np.float32], modality: int, prompt: PromptArrays | None = None
    ) -> RawDecoding:
        """The one mask that a prompt outlines."""
        if prompt is None:
            raise unprompted(self.model.path)
        return self.outlines(encoded, prompt).as_decoding()

    def outlines(
        self, encoded: NDArray[np.float32], prompt: PromptArrays, *, multimask: bool = False
    ) -> RawOutlines:
        """Masks of one prompt on each image, three of them with `multimask`."""
        points, labels = prompt_tokens(prompt, len(encoded))
        masks, quality = self.many_outlines(encoded, points[:, None], labels[:, None])
        chosen = slice(1, None) if multimask else slice(0, 1)
        return RawOutlines(masks[:, 0, chosen], quality[:, 0, chosen])

    def many_outlines(
        self, embedding: NDArray[np.float32], points: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """All masks of N prompts of P tokens each, in one pass.

        Args:
            embedding: (B, C, h, w).
            points: (B, N, P, 2) in pixels of the prompt frame.
            labels: (B, N, P): -1 none, 0 outside, 1 inside, 2 and 3 the corners of a box.

        Returns:
            Logits (B, N, 4, 4 h, 4 w), the single mask first, and their estimated IoU (B, N, 4).
        """
        masks, quality = self._graphs["decoder"]({"embedding": embedding, "points": points, "labels": labels})
        return masks, quality


def _opened(file: Path, runtime: str, device: str, threads: int) -> Any:
    """A graph as a function: feed -> outputs in order."""
    if runtime == "openvino":
        from monai_effsam.inference.runtimes.openvino_runtime import OpenVinoGraph, check_openvino_device

        check_openvino_device(device)
        return OpenVinoGraph(file, threads)
    from monai_effsam.inference.runtimes.onnx_runtime import onnx_session

    session = onnx_session(file, device, threads)
    return lambda feed: session.run(None, feed)
