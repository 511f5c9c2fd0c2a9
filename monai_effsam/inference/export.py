# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A model as graphs for runtimes without torch: ONNX and OpenVINO IR, with a manifest that says all that they need."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from monai_effsam import __version__
from monai_effsam.checkpoints import LoadedModel
from monai_effsam.errors import DataError, MissingExtraError, UnknownNameError, UsageError
from monai_effsam.inference.graphs import DecoderGraph, EncoderGraph
from monai_effsam.inference.runtimes.contract import PromptArrays, RawDecoding
from monai_effsam.inference.runtimes.exported import FORMAT, MANIFEST_NAME
from monai_effsam.inference.runtimes.quiet_import import import_openvino

__all__ = ["EXPORTS", "export_model", "parity"]

EXPORTS: tuple[str, ...] = ("onnxruntime", "openvino")
"""Runtimes that can be exported for; the first is what an exported folder runs in by default."""

OPSET = 17
_PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")
_CARRIED = ("name", "licence", "terms", "sha256", "data")


def export_model(
    model: LoadedModel, out: Path | str, runtimes: Sequence[str] = EXPORTS, *, overwrite: bool = False
) -> Path:
    """Write encoder and decoder of a model for some runtimes, with `manifest.json`.

    Batch, image size and number of prompts are dynamic. The folder appears whole or not at all.

    Args:
        model: from `checkpoints.load_model`.
        out: folder to make.
        runtimes: of `EXPORTS`, the preferred one first.
        overwrite: replace an exported model in `out`.

    Returns:
        The folder.

    Raises:
        UnknownNameError: a runtime that cannot be exported for.
        UsageError: `out` exists.
        WeightsError: a network that cannot be exported.
        MissingExtraError: the extra `export` is not installed.
        DataError: the folder cannot be written.
    """
    out = Path(out)
    for name in runtimes:
        if name not in EXPORTS:
            raise UnknownNameError("runtime", name, EXPORTS)
    if out.exists() and not (overwrite and (out / MANIFEST_NAME).is_file()):
        raise UsageError(
            f"{out}: exists, expected a new folder. Add --overwrite to replace an exported model."
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise DataError(f"{out}: folder cannot be made ({error.strerror}). Choose another -o.") from error
    try:
        graphs = _write_graphs(model, beside, runtimes)
        manifest = _manifest(model, graphs)
        (beside / MANIFEST_NAME).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        beside.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        beside.replace(out)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise DataError(f"{out}: cannot be written ({error.strerror}). Choose another -o.") from error
        raise
    return out


def parity(reference: Any, other: Any, modality: int, *, seed: int = 0) -> dict[str, float]:
    """Largest differences between two runtimes of one model on a picture of noise, without a prompt and with a box.

    Args:
        reference: a `Runtime`.
        other: a `Runtime` of the same model.
        modality: index.
        seed: of the noise.

    Returns:
        Largest absolute difference of `mask_logits`, `quality` and `presence`, and the largest logit.
    """
    names = tuple(dict.fromkeys(t.modality for t in reference.model.targets))
    size = reference.model.specs[names[modality]].size
    image = np.random.RandomState(seed).randn(1, 3, size, size).astype(np.float32)
    box = np.array([[size * 0.2, size * 0.3, size * 0.7, size * 0.8]], np.float32)
    worst = dict.fromkeys((*RawDecoding._fields, "largest_logit"), 0.0)
    encoded = [runtime.encode(image, modality) for runtime in (reference, other)]
    for prompt in (None, PromptArrays(None, None, box)):
        one, two = (
            runtime.decode(part, modality, prompt)
            for runtime, part in zip((reference, other), encoded, strict=True)
        )
        for name in RawDecoding._fields:
            gap = float(np.abs(getattr(one, name) - getattr(two, name)).max())
            worst[name] = max(worst[name], gap)
        worst["largest_logit"] = max(worst["largest_logit"], float(np.abs(one.mask_logits).max()))
    return worst


def _write_graphs(
    model: LoadedModel, folder: Path, runtimes: Sequence[str]
) -> dict[str, dict[str, list[Path]]]:
    """Files of each runtime and role, the one to open first."""
    onnx = _write_onnx(model, folder)
    written: dict[str, dict[str, list[Path]]] = {}
    for runtime in runtimes:
        if runtime == "openvino":
            written[runtime] = {role: _write_openvino(file) for role, file in onnx.items()}
        else:
            written[runtime] = {role: [file] for role, file in onnx.items()}
    if "onnxruntime" not in runtimes:
        for file in onnx.values():
            file.unlink()
    return written


def _write_onnx(model: LoadedModel, folder: Path) -> dict[str, Path]:
    network = model.network
    size = min(spec.size for spec in model.specs.values())
    batch = 2  # a batch of one would be traced as if it could be nothing else
    encoder, decoder = EncoderGraph(network).eval(), DecoderGraph(network).eval()
    image, modality = torch.randn(batch, 3, size, size), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        embedding, *skips = encoder(image, modality)
    names = ["embedding", *(f"skip_{i}" for i in range(len(skips)))]
    maps = {name: {0: "batch", 2: f"height_{i}", 3: f"width_{i}"} for i, name in enumerate(names)}
    _trace(
        encoder,
        (image, modality),
        folder / "encoder.onnx",
        ["image", "modality"],
        names,
        {"image": {0: "batch", 2: "height", 3: "width"}, **maps},
    )
    points, labels = torch.rand(batch, 3, 2) * size, torch.tensor([[1, 2, 3]]).repeat(batch, 1)
    outputs = {"mask_logits": {0: "batch", 1: "targets", 2: "h", 3: "w"}}
    outputs |= {name: {0: "batch", 1: "targets"} for name in ("quality", "presence")}
    _trace(
        decoder,
        (embedding, skips, network.targets_of(0), points, labels),
        folder / "decoder.onnx",
        [*names, "active", "points", "labels"],
        list(RawDecoding._fields),
        {
            **maps,
            "active": {0: "targets"},
            "points": {0: "batch", 1: "prompts"},
            "labels": {0: "batch", 1: "prompts"},
            **outputs,
        },
    )
    return {"encoder": folder / "encoder.onnx", "decoder": folder / "decoder.onnx"}


def _trace(
    graph: nn.Module,
    inputs: tuple[Any, ...],
    file: Path,
    names: Sequence[str],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
) -> None:
    with _tracing():
        try:
            torch.onnx.export(
                graph,
                inputs,
                str(file),
                input_names=list(names),
                output_names=list(outputs),
                dynamic_axes={name: dict(axes) for name, axes in dynamic.items()},
                opset_version=OPSET,
                dynamo=False,
            )
        except ModuleNotFoundError as error:
            raise MissingExtraError("onnx", "export") from error


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


def _write_openvino(file: Path) -> list[Path]:
    """IR of an ONNX graph; its weights in 16 bits, as `model.pt` holds them."""
    openvino = import_openvino()
    graph = file.with_suffix(".xml")
    openvino.save_model(openvino.convert_model(str(file)), str(graph), compress_to_fp16=True)
    return [graph, graph.with_suffix(".bin")]


def _manifest(model: LoadedModel, graphs: Mapping[str, Mapping[str, Sequence[Path]]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "opset": OPSET,
        "graphs": {
            runtime: {role: {file.name: _sha256(file) for file in files} for role, files in roles.items()}
            for runtime, roles in graphs.items()
        },
        "specs": {name: spec.to_json() for name, spec in model.specs.items()},
        "targets": [target.to_json() for target in model.targets],
        "made_with": {"monai_effsam": __version__, **{name: _version(name) for name in _PACKAGES}},
        **{key: model.card[key] for key in _CARRIED if key in model.card},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
