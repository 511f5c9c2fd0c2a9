# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Runtimes behind the `Segmenter`. Who adds one adds a file here, a row below and, if it exports, one in `export`."""

from __future__ import annotations

from pathlib import Path

from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.inference.runtimes.contract import ModelFacts, PromptArrays, RawDecoding, Runtime
from monai_effsam.inference.runtimes.exported import SELF_PROMPTING, is_exported, read_exported

__all__ = ["RUNTIMES", "ModelFacts", "PromptArrays", "RawDecoding", "Runtime", "open_runtime"]

RUNTIMES: tuple[str, ...] = ("torch", "onnxruntime", "openvino")
"""Names that `--runtime` takes; torch runs models as they were trained, the others what `effsam export` wrote."""


def open_runtime(
    path: Path | str, runtime: str | None = None, device: str = "cpu", threads: int | None = None
) -> Runtime:
    """A model, ready to run; torch is imported only for the runtime `torch`.

    Args:
        path: model.pt, run or bundle folder, or a folder of `effsam export`.
        runtime: one of `RUNTIMES`; None takes torch, or the first that an exported folder has.
        device: where to compute.
        threads: CPU threads of the network; None for the runtime's own choice.

    Raises:
        UnknownNameError: no such runtime.
        UsageError: a runtime that the model was not exported for, or a device that it cannot use.
        WeightsError: no model, or one that cannot be loaded.
        MissingExtraError: the runtime is not installed.
    """
    path = Path(path)
    if runtime is not None and runtime not in RUNTIMES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    if not is_exported(path):
        if runtime not in (None, "torch"):
            raise UsageError(
                f"--runtime {runtime}: {path} is no exported model. Run `effsam export --model {path} -o DIR`, then "
                "--model DIR."
            )
        from monai_effsam.checkpoints import load_model
        from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime

        return TorchRuntime(load_model(path), device, threads=threads)
    if runtime == "torch":
        raise UsageError(
            f"--runtime torch: {path} is an exported model. Name the model it was exported from."
        )
    model = read_exported(path)
    if model.card.get("kind", SELF_PROMPTING) != SELF_PROMPTING:
        raise UsageError(
            f"{path}: is a promptable model without targets of its own, expected a self-prompting one. "
            "Use `inference.runtimes.prompted.PromptedGraphs`."
        )
    chosen = runtime or next(iter(model.card["graphs"]))
    if chosen == "openvino":
        from monai_effsam.inference.runtimes.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(model, device, threads=threads)
    from monai_effsam.inference.runtimes.onnx_runtime import OnnxRuntime

    return OnnxRuntime(model, device, threads=threads)
