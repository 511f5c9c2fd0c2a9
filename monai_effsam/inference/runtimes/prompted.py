# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""An exported SAM: one picture and one prompt through its graphs, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.placement import apply_spec
from monai_effsam.errors import UsageError
from monai_effsam.inference.runtimes.contract import PromptArrays
from monai_effsam.inference.runtimes.exported import prompt_tokens, read_exported
from monai_effsam.inference.runtimes.machine import usable_cores
from monai_effsam.specs import Placement, Prompts

__all__ = ["PromptedGraphs"]


class PromptedGraphs:
    """Encoder and decoder of an exported promptable model.

    Args:
        path: folder of `effsam export`.
        runtime: `onnxruntime` or `openvino`; None for the first that the folder has.
        threads: of the CPU; None for one a core.

    Raises:
        WeightsError: no exported model, or a graph that is missing or damaged.
        MissingExtraError: the runtime is not installed.
    """

    def __init__(self, path: Path | str, runtime: str | None = None, *, threads: int | None = None) -> None:
        self.model = read_exported(path)
        self.spec = next(iter(self.model.specs.values()))
        self.runtime = runtime or next(iter(self.model.card["graphs"]))
        files = self.model.files(self.runtime)
        self._graphs = {
            role: _opened(file, self.runtime, threads or usable_cores()) for role, file in files.items()
        }

    def encode(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """(1, 3, S, S) -> embedding (1, C, h, w)."""
        return np.asarray(self._graphs["encoder"]({"image": image})[0])

    def decode(
        self, embedding: NDArray[np.float32], points: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Masks of N prompts of P tokens each.

        Args:
            embedding: (B, C, h, w).
            points: (B, N, P, 2) in pixels of the prompt frame.
            labels: (B, N, P): -1 none, 0 outside, 1 inside, 2 and 3 the corners of a box.

        Returns:
            Logits (B, N, 4, 4 h, 4 w), the single mask first, and their estimated IoU (B, N, 4).
        """
        masks, quality = self._graphs["decoder"]({"embedding": embedding, "points": points, "labels": labels})
        return masks, quality

    def outline(
        self, rgb: NDArray[np.uint8], prompts: Prompts, *, multimask: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], Placement]:
        """Masks of one prompt on one picture.

        Args:
            rgb: (H, W, 3), 0..255.
            prompts: in pixels of the picture.
            multimask: three masks, for a prompt that may mean several things.

        Returns:
            Logits (M, 4 h, 4 w), quality (M,), and how the picture lies in the model's frame.

        Raises:
            UsageError: no prompt, or one outside the picture.
        """
        if not prompts:
            raise UsageError("PromptedGraphs.outline: no prompt given, expected points or a box. Give one.")
        image, placement = apply_spec(rgb, self.spec)
        prompts.check_inside(placement.source)
        points, labels = prompt_tokens(PromptArrays.of(prompts, placement), 1)
        masks, quality = self.decode(self.encode(image[None]), points[:, None], labels[:, None])
        chosen = slice(1, None) if multimask else slice(0, 1)
        return masks[0, 0, chosen], quality[0, 0, chosen], placement


def _opened(file: Path, runtime: str, threads: int) -> Any:
    """A graph as a function: feed -> outputs in order."""
    if runtime == "openvino":
        from monai_effsam.inference.runtimes.openvino_runtime import OpenVinoGraph

        return OpenVinoGraph(file, threads)
    from monai_effsam.inference.runtimes.onnx_runtime import onnx_session

    session = onnx_session(file, "cpu", threads)
    return lambda feed: session.run(None, feed)
