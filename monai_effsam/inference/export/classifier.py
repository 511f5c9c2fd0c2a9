# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A classifier as an ONNX graph beside its weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from monai_effsam.checkpoints.classifier_file import load_classifier
from monai_effsam.inference.export.tracing import OPSET, trace_graph
from monai_effsam.inference.runtimes.exported import sha256_of
from monai_effsam.networks.blocks.tic_folding import fold_tic_norms

__all__ = ["export_classifier"]


def export_classifier(path: Path | str) -> Path:
    """Write `model.onnx` beside a classifier's `model.pt`, and its sha256 into `model.json`.

    The graph takes `image` (B, 3, S, S) float32 at the size of the classifier's spec and gives `logits` (B, K).

    Args:
        path: of `model.pt`, a run or a bundle.

    Raises:
        WeightsError: there is no classifier, or a damaged one.
        MissingExtraError: onnx is not installed.
    """
    model = load_classifier(path)
    file, meta = model.path.with_suffix(".onnx"), model.path.with_suffix(".json")
    part = file.with_name(file.name + ".part")
    image = torch.zeros(2, 3, model.spec.size, model.spec.size)
    dynamic = {name: {0: "batch"} for name in ("image", "logits")}
    trace_graph(fold_tic_norms(model.network), (image,), part, ["image"], ["logits"], dynamic)
    entry = {"file": file.name, "opset": OPSET, "sha256": sha256_of(part)}
    described = meta.with_name(meta.name + ".part")
    described.write_text(json.dumps({**model.card, "onnx": entry}, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
    described.replace(meta)
    return file
