# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Runtimes behind the `Segmenter`. Who adds one adds a file here, a row below and, if it exports, one in `export`."""

from __future__ import annotations

from pathlib import Path

from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.inference.runtimes.contract import (
    ModelFacts,
    PromptableRuntime,
    PromptArrays,
    RawDecoding,
    RawOutlines,
    Runtime,
)
from monai_effsam.inference.runtimes.exported import is_exported, read_exported

__all__ = [
    "RUNTIMES",
    "ModelFacts",
    "PromptArrays",
    "PromptableRuntime",
    "RawDecoding",
    "RawOutlines",
    "Runtime",
    "open_runtime",
]

RUNTIMES: tuple[str, ...] = ("torch", "onnxruntime", "openvino")
"""Names that `--runtime` takes; torch runs models as they were trained, the others what `effsam export` wrote."""


def open_runtime(
    path: Path | str,
    runtime: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    family: str | None = None,
) -> Runtime:
    """A model, ready to run; torch is imported only for the runtime `torch`.

    Args:
        path: model.pt, run or bundle folder, weights of SAM and its relatives, or a folder of `effsam export`.
        runtime: one of `RUNTIMES`; None takes torch, or the first that an exported folder has.
        device: where to compute.
        threads: CPU threads of the network; None for the runtime's own choice.
        family: of weights of others, where their keys do not tell it; see `checkpoints.load_checkpoint`.

    Raises:
        UnknownNameError: no such runtime or family.
        UsageError: a runtime that the model was not exported for, a family of an exported model, or a device that it
            cannot use.
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
        from monai_effsam.checkpoints import load_checkpoint
        from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime

        return TorchRuntime(load_checkpoint(path, family=family).model, device, threads=threads)
    if family is not None:
        raise UsageError(f"--family {family}: {path} is an exported model, expected none. Leave it out.")
    if runtime == "torch":
        raise UsageError(
            f"--runtime torch: {path} is an exported model. Name the model it was exported from."
        )
    model = read_exported(path)
    if model.promptable:
        from monai_effsam.inference.runtimes.prompted import PromptedGraphs

        return PromptedGraphs(model, runtime, device, threads=threads)
    chosen = runtime or next(iter(model.card["graphs"]))
    if chosen == "openvino":
        from monai_effsam.inference.runtimes.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(model, device, threads=threads)
    from monai_effsam.inference.runtimes.onnx_runtime import OnnxRuntime

    return OnnxRuntime(model, device, threads=threads)
