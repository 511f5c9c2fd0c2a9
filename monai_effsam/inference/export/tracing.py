# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One module as an ONNX graph, and an ONNX graph as OpenVINO IR."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_effsam.errors import MissingExtraError
from monai_effsam.inference.runtimes.quiet_import import import_openvino

__all__ = ["OPSET", "trace_graph", "write_openvino"]

OPSET = 17


def trace_graph(
    graph: nn.Module,
    inputs: tuple[Any, ...],
    file: Path,
    names: Sequence[str],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
) -> None:
    """Write one module as ONNX.

    Args:
        graph: in eval mode.
        inputs: an example of each.
        file: to write.
        names: of the inputs.
        outputs: names of the outputs.
        dynamic: name -> axis -> what it counts, for those that may vary.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    with _tracing():
        try:
            torch.onnx.export(
                graph,
                inputs,
                str(file),
                input_names=list(names),
                output_names=list(outputs),
                dynamic_axes={name: dict(axes) for name, axes in (dynamic or {}).items()},
                opset_version=OPSET,
                dynamo=False,
            )
        except ModuleNotFoundError as error:
            raise MissingExtraError("onnx", "export") from error


def write_openvino(file: Path, *, half: bool = False) -> list[Path]:
    """OpenVINO IR beside an ONNX file.

    Args:
        file: the ONNX graph.
        half: store weights in 16 bits.

    Returns:
        The graph and its weights.

    Raises:
        MissingExtraError: openvino is not installed.
    """
    openvino = import_openvino()
    graph = file.with_suffix(".xml")
    openvino.save_model(openvino.convert_model(str(file)), str(graph), compress_to_fp16=half)
    return [graph, graph.with_suffix(".bin")]


@contextmanager
def _tracing() -> Iterator[None]:
    """Quiet about what tracing remarks on; parity with torch is tested, and `effsam export` measures it again."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=UserWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings(
            "ignore", message=".*trac", category=Warning
        )  # TracerWarning is no UserWarning
        yield
