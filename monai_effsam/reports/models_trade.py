# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What every model loses in Dice and wins in time against one of them; of an int8 model against its fp32 one, say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_effsam.reports.table_form import Section, Table

__all__ = ["trade_section"]

_NOTE = (
    "Difference of the Dice, the mean over the pictures of all sets with its 95 % interval, and how many times as "
    "fast; above 1 is faster."
)


def trade_section(summary: Mapping[str, Any]) -> Section:
    """One table: a model a row, all against the reference.

    Args:
        summary: what `evaluation.compare_models` gives, of two models or more.
    """
    reference = summary["reference"]
    models = {model["model"]: model for model in summary["models"]}
    base = models.pop(reference)
    sizes = [
        size
        for size in base.get("images_s", {})
        if all(size in m.get("images_s", {}) for m in models.values())
    ]
    titles = (
        f"against {reference}",
        *(f"Dice, {entry['prompt']}" for entry in summary["prompts"]),
        "encoder",
        "encoder and decoder",
        *(f"encoder, {size} at once" for size in sizes),
    )
    rows = tuple(
        (
            name,
            *(_lost(entry, name, reference) for entry in summary["prompts"]),
            _times(base["encode_ms"], model["encode_ms"]),
            _times(base["encode_ms"] + base["decode_ms"], model["encode_ms"] + model["decode_ms"]),
            *(_times(model["images_s"][size], base["images_s"][size]) for size in sizes),
        )
        for name, model in models.items()
    )
    return Section("Dice lost, time won", (Table(titles, rows),), _NOTE)


def _lost(entry: Mapping[str, Any], name: str, reference: str) -> str:
    """The difference of one prompt; of the model first, whichever way the pair was tested."""
    for pair in entry["pairs"]:
        test = pair["pictures"]
        if (pair["first"], pair["second"]) == (name, reference):
            return f"{test['mean']:+.4f} ({test['low']:+.4f} to {test['high']:+.4f})"
    return "–"


def _times(slow: float, fast: float) -> str:
    return f"{slow / fast:.2f}×" if fast else "–"
