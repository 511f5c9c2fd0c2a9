# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a model is. `effsam models card` writes its model card from its own files and an evaluation's summary."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

from monai_effsam import __version__
from monai_effsam.cli.common import add_options
from monai_effsam.errors import DataError, UsageError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam models`."""
    parser.add_argument("action", choices=("card",), help="card: write the model card")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.md", help="file to write")
    parser.add_argument(
        "--summary", type=Path, metavar="FILE.json", help="summary.json of an evaluation of this model"
    )
    parser.add_argument(
        "--terms",
        type=Path,
        metavar="FILE.json",
        help="origin and terms of the data (default: docs/data_terms.json of the bundle, where there is one)",
    )
    add_options(parser, "model", "overwrite")


def run(args: argparse.Namespace) -> int:
    """Exit status 0; whatever fails is raised."""
    from monai_effsam.inference.plan import default_model_path

    if args.out.exists() and not args.overwrite:
        raise UsageError(f"{args.out}: exists, expected a new file. Add --overwrite or choose another -o.")
    summary = _read(args.summary) if args.summary else None
    given = _read(args.terms) if args.terms else None
    text = _card(args.model or default_model_path(), summary, given)

    from monai_effsam.data.io import write_bytes

    write_bytes(args.out, text.encode())
    if not args.quiet:
        print(args.out)
    return 0


def _card(path: Path, summary: dict[str, Any] | None, terms: dict[str, Any] | None) -> str:
    from monai_effsam.checkpoints import load_model
    from monai_effsam.evaluation import model_cost, model_name
    from monai_effsam.reports import CardSources, model_card

    model = load_model(path)
    if summary is not None and summary["model"]["sha256"] != model.card.get("sha256"):
        raise UsageError(
            f"--summary: is of a model with sha256 {summary['model']['sha256']}, expected "
            f"{model.card.get('sha256')}. Evaluate this model."
        )
    if summary is not None and summary["made"].get("robot"):
        raise UsageError(
            "--summary: is of a simulated user, expected an evaluation without prompts. Evaluate without --robot."
        )
    beside = model.path.parent.parent / "docs" / "data_terms.json"
    if terms is None:
        terms = _read(beside) if beside.is_file() else {}
    return model_card(
        CardSources(
            name=model_name(model),
            version=__version__,
            date=datetime.date.today().isoformat(),
            card=model.card,
            cost=model_cost(model),
            summary=summary,
            terms=terms,
        )
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file, expected JSON. Check the name.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}). Make it again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, expected an object. Make it again.")
    return content
