# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a model is. `effsam models card` writes a model card from the model's own files and an evaluation's summary.

`effsam models check FILE` verifies a file of weights (SAM, MedSAM, MobileSAM, TinySAM, LiteMedSAM, or a model of this
package): family, checksum, input and licence, and a forward pass on a picture with a box.
"""

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

_CARD_ONLY = {
    "out": "-o",
    "summary": "--summary",
    "terms": "--terms",
    "model": "--model",
    "overwrite": "--overwrite",
}
_CHECK_ONLY = {
    "file": "FILE",
    "family": "--family",
    "sha256": "--sha256",
    "image": "--image",
    "json": "--json",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam models`."""
    parser.add_argument(
        "action",
        choices=("card", "check"),
        help="card: write the model card; check: verify a file of weights",
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="check: file of weights")
    check = parser.add_argument_group("check")
    check.add_argument(
        "--family",
        metavar="NAME",
        help="sam, medsam, mobile_sam, tiny_sam, lite_medsam or effsam (default: told by its keys; MedSAM's are SAM's)",
    )
    check.add_argument("--sha256", metavar="HEX", help="checksum that the file must have")
    check.add_argument("--image", type=Path, metavar="FILE", help="picture to try (default: a drawn ellipse)")
    add_options(check, "json")
    card = parser.add_argument_group("card")
    card.add_argument("-o", "--out", type=Path, metavar="FILE.md", help="file to write")
    card.add_argument(
        "--summary", type=Path, metavar="FILE.json", help="summary.json of an evaluation of this model"
    )
    card.add_argument(
        "--terms",
        type=Path,
        metavar="FILE.json",
        help="origin and terms of the data (default: docs/data_terms.json of the bundle, where there is one)",
    )
    add_options(card, "model", "overwrite")


def run(args: argparse.Namespace) -> int:
    """Exit status 0; whatever fails is raised."""
    foreign = _CHECK_ONLY if args.action == "card" else _CARD_ONLY
    given = [flag for name, flag in foreign.items() if getattr(args, name)]
    if given:
        other = "check" if args.action == "card" else "card"
        raise UsageError(
            f"{args.action}: {', '.join(given)} given, expected only with {other}. Leave it out."
        )
    if args.action == "check":
        return _check(args)
    if args.out is None:
        raise UsageError("card: no -o given, expected the file to write. Give -o FILE.md.")
    return _write_card(args)


def _check(args: argparse.Namespace) -> int:
    if args.file is None:
        raise UsageError("check: no FILE given, expected a file of weights. Name one.")
    from monai_effsam.cli.check_weights import check_weights, report

    found = check_weights(args.file, family=args.family, sha256=args.sha256, image=args.image)
    report(found, as_json=args.json, quiet=args.quiet)
    return 0


def _write_card(args: argparse.Namespace) -> int:
    from monai_effsam.inference.model_path import find_model_path

    if args.out.exists() and not args.overwrite:
        raise UsageError(f"{args.out}: exists, expected a new file. Add --overwrite or choose another -o.")
    summary = _read(args.summary) if args.summary else None
    given = _read(args.terms) if args.terms else None
    text = _card(find_model_path(args.model), summary, given)

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
    if summary is not None and summary["made"].get("robot") and not model.promptable:
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
