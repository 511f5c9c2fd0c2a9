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

_OUTDATED = ("You are using the legacy TorchScript-based ONNX export", "The feature will be removed")
"""What torch says of its exporter from TorchScript; the newer one needs a package more, onnxscript."""


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


_UNFOLDED = "Constant folding - Only steps=1"
"""What torch says of the order in which it writes the widths of a padding; runtimes fold it themselves."""


@contextmanager
def _tracing() -> Iterator[None]:
    """Without what is known of tracing: torch prefers its newer exporter, and values of Python become constants.

    Whether such a constant should have been one is what the tests of parity ask, and `effsam export` anew each time.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        for known in _OUTDATED:
            warnings.filterwarnings("ignore", message=known, category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=_UNFOLDED, category=UserWarning)
        yield
