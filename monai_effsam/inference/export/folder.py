# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A model as graphs for runtimes without torch: ONNX and OpenVINO IR, with a manifest that says all that they need."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from monai_effsam import __version__
from monai_effsam.checkpoints import LoadedModel
from monai_effsam.errors import DataError, UnknownNameError, UsageError, WeightsError
from monai_effsam.inference.export.esp_medsam import write_esp_medsam
from monai_effsam.inference.export.int8 import Int8Settings, quantise
from monai_effsam.inference.export.promptable_sam import write_promptable_sam
from monai_effsam.inference.export.tracing import OPSET, write_openvino
from monai_effsam.inference.runtimes.exported import FORMAT, MANIFEST_NAME, sha256_of
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import PROMPTABLE, SELF_PROMPTING

__all__ = ["EXPORTS", "export_model"]

EXPORTS: tuple[str, ...] = ("onnxruntime", "openvino")
"""Runtimes that can be exported for; the first is what an exported folder runs in by default."""

_PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")
_CARRIED = ("name", "version", "licence", "terms", "sha256", "data")


def export_model(
    model: LoadedModel,
    out: Path | str,
    runtimes: Sequence[str] = EXPORTS,
    *,
    overwrite: bool = False,
    int8: Int8Settings | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write encoder and decoder of a model for some runtimes, with `manifest.json`.

    Batch and number of prompts are dynamic, the image size too unless the network is a SAM. The folder appears whole
    or not at all.

    Args:
        model: from `checkpoints.load_model`, or `load_checkpoint(...).model`.
        out: folder to make.
        runtimes: of `EXPORTS`, the preferred one first.
        overwrite: replace an exported model in `out`.
        int8: quantise the graphs of a promptable model, for openvino alone.
        card: further entries of the manifest.

    Returns:
        The folder.

    Raises:
        UnknownNameError: a runtime that cannot be exported for.
        UsageError: `out` exists, or int8 for another runtime than openvino or for a self-prompting model.
        WeightsError: a network that cannot be exported, or a promptable one of several model sizes.
        MissingExtraError: the extra `export`, for int8 `nas`, is not installed.
        DataError: the folder cannot be written, or the model outlines nothing to judge int8 by.
    """
    out = Path(out)
    for name in runtimes:
        if name not in EXPORTS:
            raise UnknownNameError("runtime", name, EXPORTS)
    if int8 is not None:
        _check_int8(model, runtimes)
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
        more = {} if int8 is None else {"int8": quantise(graphs["openvino"], int8)}
        manifest = {**_manifest(model, graphs), **more, **(card or {})}
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


def _check_int8(model: LoadedModel, runtimes: Sequence[str]) -> None:
    if tuple(runtimes) != ("openvino",):
        raise UsageError(
            f"int8: is asked for {', '.join(runtimes)}, expected openvino alone. Give --runtime openvino."
        )
    if not model.promptable:
        raise UsageError(
            f"{model.path}: is self-prompting, expected a promptable model for int8. Leave --int8 out."
        )


def _write_graphs(
    model: LoadedModel, folder: Path, runtimes: Sequence[str]
) -> dict[str, dict[str, list[Path]]]:
    """Files of each runtime and role, the one to open first."""
    sizes, network = sorted({spec.size for spec in model.specs.values()}), model.network
    if isinstance(network, EspMedSam):
        onnx = write_esp_medsam(network, sizes[0], folder)
    elif len(sizes) > 1:
        raise WeightsError(
            f"{model.path}: its specs have the sizes {', '.join(map(str, sizes))}, expected one: the graphs of a "
            "promptable model take one. Export a model whose modalities share a size."
        )
    else:
        onnx = write_promptable_sam(network, sizes[0], folder)
    # weights that a 16-bit file held lose nothing in 16 bits, others would
    is_half = all(torch.equal(value, value.half().float()) for value in network.parameters())
    written: dict[str, dict[str, list[Path]]] = {}
    for runtime in runtimes:
        if runtime == "openvino":
            written[runtime] = {role: write_openvino(file, half=is_half) for role, file in onnx.items()}
        else:
            written[runtime] = {role: [file] for role, file in onnx.items()}
    if "onnxruntime" not in runtimes:
        for file in onnx.values():
            file.unlink()
    return written


def _manifest(model: LoadedModel, graphs: Mapping[str, Mapping[str, Sequence[Path]]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": PROMPTABLE if model.promptable else SELF_PROMPTING,
        "opset": OPSET,
        "graphs": {
            runtime: {role: {file.name: sha256_of(file) for file in files} for role, files in roles.items()}
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
