# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Prompt several models with the same boxes and points, and set their masks side by side in one table.

DATA is a folder of sets with targets.csv and splits.csv, a folder of image/mask pairs (give --modality and --target),
or a MONAI datalist (the same). A simulated user draws a box around each target, once for each --jitter, and clicks once
into its middle. Beside the models stands what needs no look at the picture. An interrupted run goes on with --resume.
Exit status: 0 all well, 1 a file failed, 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.cli.common import add_options, parse_batches, print_json
from monai_effsam.cli.labelled import add_data_options, check_data, named_targets, read_cases
from monai_effsam.cli.model_options import open_model
from monai_effsam.errors import DataError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from monai_effsam.data.sets import Case
    from monai_effsam.evaluation import ModelsSettings

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam compare`."""
    add_data_options(parser)
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="a model and its name in the table; repeat for each, in the order of the table",
    )
    parser.add_argument(
        "--family",
        action="append",
        default=[],
        metavar="NAME=FAMILY",
        help="of SAM-like weights, where their keys do not tell it; MedSAM's are SAM's",
    )
    parser.add_argument(
        "--jitter",
        default="0,10,20",
        metavar="PX,PX",
        help="how far box sides stray at most, at 1024 pixels a side; a prompt each (default: 0,10,20)",
    )
    parser.add_argument(
        "--reference", metavar="NAME", help="the model that the others are compared with (default: the first)"
    )
    parser.add_argument("--split", default="val", metavar="NAME", help="that is answered (default: val)")
    parser.add_argument(
        "--notes", type=Path, metavar="FILE.md", help="what the page has to say besides, put in as it is"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep the answers that DIR has of the same models and prompts"
    )
    parser.add_argument(
        "--write-docs",
        type=Path,
        metavar="FILE.md",
        help="also write the page here, with FILE.json and FILE.svg beside it; all are replaced",
    )
    parser.add_argument(
        "--batches",
        metavar="N,N",
        help="also measure how many pictures a second the encoders take, N at once, as in 1,16",
    )
    add_options(parser, "out", "seed", "overwrite", "json", "device", required=("out",))
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of the networks (default: the runtime decides)"
    )


def run(args: argparse.Namespace) -> int:
    """Exit status 0; whatever fails is raised."""
    models = _models(args.model)
    families = _families(args.family, models)
    _check(args, models)
    check_data(args.data)
    cases = read_cases(args, named_targets(args))  # refuses a wrong folder or name before torch is loaded
    summary = _compare(args, models, families, cases)
    if args.write_docs:
        _write_docs(args.write_docs, summary)
    if args.json:
        print_json(summary)
    elif not args.quiet:
        print((args.out / "table.md").read_text(encoding="utf-8"))
    return 0


def _models(words: Sequence[str]) -> dict[str, Path]:
    """--model options as name -> path."""
    from monai_effsam.inference.model_path import find_model_path

    models: dict[str, Path] = {}
    for word in words:
        name, _, path = word.partition("=")
        if not (name.strip() and path) or "|" in name:
            raise UsageError(
                f"--model: is '{word}', expected a name and a path, as in --model sam=sam_vit_b.pth."
            )
        if name in models:
            raise UsageError(f"--model {name}: is given twice, expected another name for each model.")
        models[name] = find_model_path(Path(path), f"--model {name}")
    return models


def _families(words: Sequence[str], models: dict[str, Path]) -> dict[str, str]:
    """--family options as name of the model -> family."""
    families: dict[str, str] = {}
    for word in words:
        name, _, family = word.partition("=")
        if name not in models:
            raise UnknownNameError("--family", name, models)
        families[name] = family
    return families


def _check(args: argparse.Namespace, models: dict[str, Path]) -> None:
    """Refuse what can be seen to be wrong before anything heavy is loaded."""
    if args.reference is not None and args.reference not in models:
        raise UnknownNameError("--reference", args.reference, models)
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads: is {args.threads}, expected at least 1.")
    if args.write_docs and args.write_docs.suffix != ".md":
        raise UsageError(f"--write-docs: is '{args.write_docs}', expected a file that ends with .md.")
    parse_batches(args.batches)
    if args.resume and args.overwrite:
        raise UsageError("--resume and --overwrite: both are given, expected one of them.")
    if args.notes and not args.notes.is_file():
        raise UsageError(f"--notes: {args.notes} is missing, expected a Markdown file.")
    if not all(word.strip().isdecimal() for word in args.jitter.split(",")):
        raise UsageError(
            f"--jitter: is '{args.jitter}', expected whole numbers of pixels, as in --jitter 0,20."
        )


def _compare(
    args: argparse.Namespace, models: dict[str, Path], families: dict[str, str], cases: Sequence[Case]
) -> dict[str, Any]:
    from tqdm import tqdm

    from monai_effsam.evaluation import compare_models

    settings = _settings(args)
    openers = {
        name: partial(open_model, path, None, args.device, args.threads, families.get(name))
        for name, path in models.items()
    }
    with tqdm(unit="picture", delay=2, disable=True if args.quiet else None, leave=False) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return compare_models(
            cases,
            openers,
            args.out,
            settings=settings,
            command=_command(args, models),
            resume=args.resume,
            overwrite=args.overwrite,
            on_step=tell,
        )


def _settings(args: argparse.Namespace) -> ModelsSettings:
    """What is asked for besides models and data."""
    from monai_effsam.evaluation import ModelsSettings

    return ModelsSettings(
        jitter=tuple(int(word) for word in args.jitter.split(",")),
        reference=args.reference,
        split=args.split,
        seed=args.seed,
        notes=_notes(args.notes) if args.notes else "",
        batches=parse_batches(args.batches),
    )


def _notes(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--notes: {path} cannot be read ({error}), expected a Markdown file.") from error


def _command(args: argparse.Namespace, models: dict[str, Path]) -> str:
    """The command that makes the table again, without paths of one machine."""
    from monai_effsam.evaluation import data_words
    from monai_effsam.evaluation.outputs import told_path

    sets = [name for name in (args.sets or "").split(",") if name]
    words = ["effsam", "compare", *data_words(args.data, sets, args.modality, args.target)]
    words += [
        word for name, path in models.items() for word in ("--model", f"{name}={told_path(path, 'PATH')}")
    ]
    words += [word for family in args.family for word in ("--family", family)]
    options = {
        "--jitter": args.jitter if args.jitter != "0,10,20" else None,
        "--reference": args.reference,
        "--split": args.split if args.split != "val" else None,
        "--seed": args.seed or None,
        "--batches": args.batches,
        "--threads": args.threads,
    }
    return " ".join([*words, *(w for name, v in options.items() if v is not None for w in (name, str(v)))])


def _write_docs(page: Path, summary: dict[str, Any]) -> None:
    from monai_effsam.data.io import write_bytes
    from monai_effsam.reports import models_page, models_plot

    plot = page.with_suffix(".svg")
    write_bytes(page, models_page(summary, plot.name).encode())
    write_bytes(plot, models_plot(summary).encode())
    write_bytes(page.with_suffix(".json"), (json.dumps(summary, indent=1) + "\n").encode())
