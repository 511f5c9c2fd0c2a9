# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam distill --ablation`: the same distillation with all its terms, and without each of them, as one table."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.errors import UsageError

if TYPE_CHECKING:
    from monai_effsam.engines.distilling_recipe import DistillationRecipe

__all__ = ["ABLATION", "check_terms", "compare_terms", "without_each"]

ABLATION = "ablation.json"

_OFF: Mapping[str, dict[str, Any]] = {
    "embedding": {"embedding": 0.0},
    "perceptual": {"perceptual": "none"},
    "logits": {"logits": 0.0},
    "saliency": {"saliency": "none"},
}
"""Term -> the fields of a recipe that leave it out."""


def check_terms(args: argparse.Namespace) -> None:
    """Refuse weights that cannot be, and a table that exists.

    Raises:
        UsageError: naming the option.
    """
    for name in ("embedding_weight", "logits", "saliency_weight"):
        if getattr(args, name) < 0:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(args, name)}, expected 0 or more.")
    if args.temperature <= 0:
        raise UsageError(f"--temperature is {args.temperature}, expected more than 0.")
    if (args.out / ABLATION).exists() and not (args.resume or args.overwrite):
        raise UsageError(f"{args.out / ABLATION}: exists. Give --resume, another --out, or --overwrite.")


def without_each(recipe: DistillationRecipe) -> dict[str, DistillationRecipe]:
    """A recipe, and the same without each of the terms that it has, by what it is called in the table.

    Raises:
        UsageError: it trains no encoder, or on one term alone.
    """
    used = [
        name
        for name, off in _OFF.items()
        if any(getattr(recipe, field) != value for field, value in off.items())
    ]
    if "encoder" not in recipe.stages or len(used) < 2:
        raise UsageError(
            f"--ablation: the encoder learns from {', '.join(used) or 'nothing'} in stages {', '.join(recipe.stages)}, "
            "expected a stage encoder with two terms or more. Add --logits 1 or --saliency activation."
        )
    less = {f"without_{name}": dataclasses.replace(recipe, **_OFF[name]) for name in used}
    return {"all_terms": recipe, **less}


def compare_terms(
    args: argparse.Namespace,
    recipe: DistillationRecipe,
    distil: Callable[[argparse.Namespace, DistillationRecipe], None],
) -> None:
    """Distil each, in folders of `--out`, then write `ablation.json` and print the table.

    Args:
        args: of the command.
        recipe: with all terms.
        distil: runs one recipe with the options of the command, `out` being its own folder.

    Raises:
        UsageError: see `without_each`.
    """
    found: dict[str, Any] = {}
    for name, changed in without_each(recipe).items():
        own = argparse.Namespace(**(vars(args) | {"out": args.out / name}))
        distil(own, changed)
        if not args.fill:
            found[name] = _numbers(args.out / name)
    if found:
        from monai_effsam.data.io import write_bytes

        write_bytes(args.out / ABLATION, (json.dumps(found, indent=1) + "\n").encode())
        print(_table(found))


def _numbers(folder: Path) -> dict[str, float]:
    """What the stages of a run measured in the end on the pictures that they watch."""
    stages = json.loads((folder / "model.json").read_text(encoding="utf-8"))["stages"]
    return {
        f"{stage} {name}": round(float(value), 4)
        for stage, told in stages.items()
        for name, value in told["after"].items()
        if name != "loss"  # the sum of other terms in each row
    }


def _table(found: Mapping[str, Mapping[str, float]]) -> str:
    from monai_effsam.reports import markdown_table

    columns = list(dict.fromkeys(name for numbers in found.values() for name in numbers))
    rows = [
        (name.replace("_", " "), *(f"{numbers[c]:.4f}" if c in numbers else "–" for c in columns))
        for name, numbers in found.items()
    ]
    return markdown_table(("on held-out pictures", *columns), rows)
