# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Weights that came from elsewhere, as a version of the model in use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from monai_effsam.errors import UsageError
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.labelling.learning.publication import publish

__all__ = ["publish_weights"]


def publish_weights(weights: Path, like: Segmenter, models: Path) -> Path:
    """Publish weights; they are described by what describes the model in use, so they must be of its kind.

    Args:
        weights: plain tensors.
        like: the model in use.
        models: folder of the published versions.

    Returns:
        `model.pt` of the new version.

    Raises:
        WeightsError: they do not fit; nothing is published.
        UsageError: the model in use is an export, which has no weights to replace.
    """
    card = like.model.path.with_suffix(".json")
    if not card.is_file():
        raise UsageError("model: runs as an export, expected weights to replace. Serve a model.pt.")

    def write(folder: Path) -> None:
        shutil.copyfile(weights, folder / "model.pt")
        described = json.loads(card.read_text(encoding="utf-8"))
        described.pop("sha256", None)
        (folder / "model.json").write_text(json.dumps(described), encoding="utf-8")
        Segmenter.open(folder / "model.pt")  # raises what does not fit, before anything points here

    return publish(models, write)
