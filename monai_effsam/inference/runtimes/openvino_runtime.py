# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""OpenVINO behind the `Segmenter`; no torch anywhere.

Each model size is compiled when it is first met, with fixed shapes, one image at a time: that is what OpenVINO is
fastest at on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import UsageError, WeightsError
from monai_effsam.inference.runtimes.contract import PromptArrays, RawDecoding
from monai_effsam.inference.runtimes.exported import ExportedModel, active_rows, prompt_tokens
from monai_effsam.inference.runtimes.machine import usable_cores
from monai_effsam.inference.runtimes.quiet_import import import_openvino

__all__ = ["OpenVinoGraph", "OpenVinoRuntime", "check_openvino_device"]

Arrays = dict[str, NDArray[Any]]


class OpenVinoRuntime:
    """An exported model in OpenVINO, in 32-bit arithmetic (bf16 without hardware for it is many times slower).

    Args:
        model: from `read_exported`.
        device: `cpu`.
        threads: of the CPU; None for one a core.

    Raises:
        UsageError: another device.
        WeightsError: a graph is missing or damaged.
        MissingExtraError: openvino is not installed.
    """

    name = "openvino"

    def __init__(self, model: ExportedModel, device: str = "cpu", *, threads: int | None = None) -> None:
        check_openvino_device(device)
        self.model, self.device, self.threads = model, device, threads or usable_cores()
        files = model.files(self.name)
        self._graphs = {role: OpenVinoGraph(file, self.threads) for role, file in files.items()}

    def encode(self, images: NDArray[np.float32], modality: int) -> Arrays:
        """(B, 3, S, S) -> embedding and skips by name."""
        number = np.array([modality], np.int64)
        parts = [self._graphs["encoder"]({"image": image[None], "modality": number}) for image in images]
        embedding, *skips = (np.concatenate(column) for column in zip(*parts, strict=True))
        return {"embedding": embedding, **{f"skip_{i}": skip for i, skip in enumerate(skips)}}

    def encode_at_once(self, images: NDArray[np.float32], modality: int) -> Arrays:
        """As `encode`, in one pass; one by one is as fast on a CPU, and needs less memory."""
        number = np.array([modality], np.int64)
        embedding, *skips = self._graphs["encoder"]({"image": images, "modality": number})
        return {"embedding": embedding, **{f"skip_{i}": skip for i, skip in enumerate(skips)}}

    def decode(self, encoded: Arrays, modality: int, prompt: PromptArrays | None = None) -> RawDecoding:
        """Masks of all targets of a modality."""
        active = active_rows(self.model, modality)
        points, labels = prompt_tokens(prompt, 1)
        parts = []
        for index in range(len(encoded["embedding"])):
            one = {name: value[index : index + 1] for name, value in encoded.items()}
            parts.append(
                self._graphs["decoder"]({**one, "active": active, "points": points, "labels": labels})
            )
        return RawDecoding(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def check_openvino_device(device: str) -> None:
    """Refuse a device that OpenVINO is not used for here.

    Raises:
        UsageError: another than `cpu`.
    """
    if device != "cpu":
        raise UsageError(
            f"--device: is '{device}', expected cpu, which is all that openvino is used for here."
        )


class OpenVinoGraph:
    """One graph, compiled for each set of input shapes that it meets.

    Args:
        file: its IR.
        threads: of the CPU.

    Raises:
        MissingExtraError: openvino is not installed.
    """

    def __init__(self, file: Path, threads: int) -> None:
        self._core, self._file = import_openvino().Core(), file
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._compiled: dict[tuple[tuple[int, ...], ...], Any] = {}

    def __call__(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Outputs in the graph's order, copied: the next call would overwrite them."""
        shapes = tuple(value.shape for value in feed.values())
        if shapes not in self._compiled:
            try:
                model = self._core.read_model(self._file)
                model.reshape({name: list(value.shape) for name, value in feed.items()})
                self._compiled[shapes] = self._core.compile_model(
                    model, "CPU", self._options
                ).create_infer_request()
            except RuntimeError as error:
                raise WeightsError(
                    f"{self._file}: OpenVINO cannot load it ({str(error).splitlines()[-1]}). Export the model again."
                ) from error
        request = self._compiled[shapes]
        request.infer(dict(feed))
        return [np.array(request.get_output_tensor(i).data) for i in range(len(request.model_outputs))]
