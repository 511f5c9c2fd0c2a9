# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Times of any module in any runtime: graphs prepared once, then timed by turns, so that drift falls on all alike."""

from __future__ import annotations

import copy
import importlib.metadata
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.inference.export.tracing import trace_graph
from monai_effsam.inference.runtimes import RUNTIMES
from monai_effsam.inference.runtimes.machine import processor_facts, usable_cores
from monai_effsam.networks.encoders import fold_batch_norm

__all__ = ["CLOCKS", "RuntimeStopwatch"]

CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Name -> seconds. `cpu` counts what this process computes: on a busy machine steadier, for one thread only."""

_ENOUGH_MS = 2.0  # of one reading; shorter calls are repeated


class RuntimeStopwatch:
    """Times modules in torch, ONNX Runtime or OpenVINO, as the package's own runtimes would run them.

    Args:
        runtime: one of `RUNTIMES`.
        device: `cpu`, or `cuda:N` for torch and ONNX Runtime.
        threads: of the CPU; None for one a core. In torch they are those of the whole process.
        clock: one of `CLOCKS`.
        rounds: readings of each call.

    Raises:
        UnknownNameError: no such runtime or clock.
        UsageError: the clock cannot time this, or torch does not see the device.
    """

    def __init__(
        self,
        runtime: str,
        device: str = "cpu",
        threads: int | None = None,
        *,
        clock: str = "wall",
        rounds: int = 15,
    ) -> None:
        if runtime not in RUNTIMES:
            raise UnknownNameError("runtime", runtime, RUNTIMES)
        if clock not in CLOCKS:
            raise UnknownNameError("clock", clock, CLOCKS)
        self.runtime, self.device, self.clock, self.rounds = runtime, device, clock, rounds
        self.threads = threads or usable_cores()
        if clock == "cpu" and (self.threads != 1 or device != "cpu"):
            raise UsageError(
                f"clock 'cpu': threads are {self.threads} on {device}, expected 1 on cpu. Give --threads 1."
            )
        if runtime == "torch":
            torch.set_num_threads(self.threads)
        if device != "cpu" and not torch.cuda.is_available():
            raise UsageError(f"device is '{device}', expected one that torch {torch.__version__} sees: cpu.")

    @property
    def machine(self) -> dict[str, Any]:
        """What the times depend on; nothing that names a host, a user or a path."""
        package = self.runtime
        facts: dict[str, Any] = {**processor_facts(), "runtime": self.runtime, "device": self.device}
        if self.device != "cpu":
            facts["gpu"] = torch.cuda.get_device_name(self.device)
        return {
            **facts,
            "threads": self.threads,
            "clock": self.clock,
            "version": importlib.metadata.version(package),
        }

    def prepare(self, graph: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
        """A call that runs a module on these inputs once, to its end; its norms are folded first.

        Args:
            graph: in eval mode; left as it is.
            inputs: tensors of the CPU.

        Raises:
            MissingExtraError: the runtime, or onnx, is not installed.
        """
        graph = fold_batch_norm(copy.deepcopy(graph)).eval().requires_grad_(False)
        if self.runtime == "torch":
            return self._torch_call(graph, inputs)
        names = [f"input_{i}" for i in range(len(inputs))]
        with torch.no_grad():
            found = graph(*inputs)
        outputs = [f"output_{i}" for i in range(1 if isinstance(found, Tensor) else len(found))]
        feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "graph.onnx"
            trace_graph(graph, inputs, file, names, outputs)
            return self._exported_call(file, feed)

    def _torch_call(self, graph: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
        graph = graph.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        placed = [x.to(self.device) for x in inputs]
        placed = [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in placed]
        on_gpu = self.device != "cpu"

        def call() -> None:
            with torch.inference_mode():
                graph(*placed)
            if on_gpu:
                torch.cuda.synchronize(self.device)

        return call

    def _exported_call(self, file: Path, feed: dict[str, Any]) -> Callable[[], object]:
        """The graph in memory; its file may go."""
        if self.runtime == "openvino":
            from monai_effsam.inference.runtimes.openvino_runtime import OpenVinoGraph, check_openvino_device

            check_openvino_device(self.device)
            compiled = OpenVinoGraph(file, self.threads)
            compiled(feed)
            return partial(compiled, feed)
        from monai_effsam.inference.runtimes.onnx_runtime import onnx_session

        session = onnx_session(file, self.device, self.threads)
        return partial(session.run, None, feed)

    def turns(self, calls: Sequence[Callable[[], object]]) -> list[list[float]]:
        """Times of each call [ms], `rounds` readings by turns after some that warm up."""
        repeats = []
        for call in calls:
            self._reading(call, 2)
            repeats.append(max(1, min(50, round(_ENOUGH_MS / max(self._reading(call, 2), 1e-3)))))
        found: list[list[float]] = [[] for _ in calls]
        for _ in range(self.rounds):
            for times, call, repeat in zip(found, calls, repeats, strict=True):
                times.append(self._reading(call, repeat))
        return found

    def _reading(self, call: Callable[[], object], repeats: int) -> float:
        clock = CLOCKS[self.clock]
        start = clock()
        for _ in range(repeats):
            call()
        return (clock() - start) * 1000 / repeats
