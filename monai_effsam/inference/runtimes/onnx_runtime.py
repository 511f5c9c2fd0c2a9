# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""ONNX Runtime behind the `Segmenter`; no torch anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import UsageError, WeightsError
from monai_effsam.inference.runtimes.contract import PromptArrays, RawDecoding
from monai_effsam.inference.runtimes.exported import ExportedModel, active_rows, prompt_tokens
from monai_effsam.inference.runtimes.machine import usable_cores
from monai_effsam.inference.runtimes.quiet_import import import_onnxruntime

__all__ = ["OnnxRuntime", "onnx_session"]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime:
    """An exported model in ONNX Runtime.

    Args:
        model: from `read_exported`.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: of the CPU; None for one a core.

    Raises:
        UsageError: this build of ONNX Runtime cannot use the device.
        WeightsError: a graph is missing or damaged.
        MissingExtraError: onnxruntime is not installed.
    """

    name = "onnxruntime"

    def __init__(self, model: ExportedModel, device: str = "cpu", *, threads: int | None = None) -> None:
        self.model, self.device, self.threads = model, device, threads or usable_cores()
        files = model.files(self.name)
        self._encoder = onnx_session(files["encoder"], device, self.threads)
        self._decoder = onnx_session(files["decoder"], device, self.threads)
        self._outputs = [output.name for output in self._encoder.get_outputs()]

    def encode(self, images: NDArray[np.float32], modality: int) -> dict[str, NDArray[np.float32]]:
        """(B, 3, S, S) -> embedding and skips by name."""
        values = self._encoder.run(None, {"image": images, "modality": np.array([modality], np.int64)})
        return dict(zip(self._outputs, values, strict=True))

    def decode(
        self, encoded: dict[str, NDArray[np.float32]], modality: int, prompt: PromptArrays | None = None
    ) -> RawDecoding:
        """Masks of all targets of a modality."""
        points, labels = prompt_tokens(prompt, len(encoded["embedding"]))
        feed = {**encoded, "active": active_rows(self.model, modality), "points": points, "labels": labels}
        return RawDecoding(*self._decoder.run(list(RawDecoding._fields), feed))


def onnx_session(file: Path, device: str, threads: int) -> Any:
    """An `InferenceSession` of one graph; errors as of `OnnxRuntime`."""
    onnxruntime = import_onnxruntime()
    kind, _, number = device.partition(":")
    known = onnxruntime.get_available_providers()
    provider = _PROVIDERS.get(kind)
    if provider not in known:
        raise UsageError(
            f"--device: is '{device}', expected one that this onnxruntime can use: "
            f"{', '.join(name for name, value in _PROVIDERS.items() if value in known)}."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # threads that wait by spinning take the cores from reading and writing, which overlap with the network
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    chosen = (provider, {"device_id": number}) if number else provider
    try:
        return onnxruntime.InferenceSession(file, options, providers=[chosen])
    except Exception as error:  # its exceptions share no base of their own
        raise WeightsError(
            f"{file}: ONNX Runtime cannot load it ({error}). Export the model again."
        ) from error
