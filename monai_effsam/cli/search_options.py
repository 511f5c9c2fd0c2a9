# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The options of `effsam search`: machine and budget, pictures and teacher, way of the search."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from monai_effsam.cli.common import add_options
from monai_effsam.cli.inheriting import add_inherit_network
from monai_effsam.cli.labelled import add_label_options
from monai_effsam.errors import UsageError

__all__ = ["add_search_options", "budget_of"]


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    parser.add_argument(
        "--budget",
        required=True,
        metavar="N",
        help="most that a network may cost: 15ms of the encoder on the machine below, or 300MMAC",
    )
    parser.add_argument("--images", required=True, type=Path, metavar="PATH", dest="data", help="see above")
    add_label_options(parser)
    parser.add_argument(
        "--teacher",
        metavar="PATH",
        help="checkpoint, model, run or bundle; 'random'; default: one that ships",
    )
    parser.add_argument("--teacher-family", metavar="NAME", help="as of `effsam distill`")
    add_options(parser, "out", "seed", "overwrite", required=("out",))
    parser.add_argument("--resume", action="store_true", help="continue an interrupted search in --out")
    parser.add_argument("--dry-run", action="store_true", help="say how long it would take, and stop")
    _add_machine(parser.add_argument_group("the machine that the network is for"))
    _add_way(parser.add_argument_group("the way of the search"))


def _add_machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", default="cpu", metavar="NAME", help="cpu (default), cuda or cuda:N")
    group.add_argument("--runtime", metavar="NAME", help="torch, onnxruntime (default) or openvino")
    group.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: one a core)")
    group.add_argument(
        "--table",
        type=Path,
        metavar="FILE.json",
        help="latency table of `effsam profile --table`; what it lacks is measured (default: OUT/table.json)",
    )
    group.add_argument(
        "--with-decoder",
        action="store_true",
        help="the budget is of encoding a picture and answering one box",
    )
    group.add_argument("--clock", choices=("wall", "cpu"), help="as of `effsam profile --table`")


def _add_way(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--space",
        default="small",
        metavar="NAME",
        help="tiny, small (default), full or inherited (of parts of EfficientNet-Lite0, for --inherit)",
    )
    group.add_argument(
        "--inherit",
        type=Path,
        metavar="FILE",
        help="networks begin with these weights of a pretrained one, .safetensors, where they have such blocks",
    )
    add_inherit_network(group)
    group.add_argument(
        "--searcher",
        default="differentiable",
        metavar="NAME",
        help="differentiable (default), random, evolution or nsga2",
    )
    group.add_argument("--stem", type=int, metavar="N", help="stride of the first stage (default: either)")
    group.add_argument("--stride", type=int, metavar="N", help="of the embedding (default: any of the space)")
    group.add_argument(
        "--decoder-depth",
        type=int,
        metavar="N",
        help="blocks of its transformer (default: most of the space)",
    )
    group.add_argument("--epochs", type=int, default=30, metavar="N", help="of a supernet (default: 30)")
    group.add_argument(
        "--outer", type=int, default=1, metavar="N", help="supernets, for the best frames (default: 1)"
    )
    group.add_argument(
        "--top", type=int, default=4, metavar="N", help="networks judged a supernet (default: 4)"
    )
    group.add_argument(
        "--count", type=int, default=20, metavar="N", help="networks that other searchers judge (default: 20)"
    )
    group.add_argument("--batch", type=int, default=8, metavar="N", help="views a batch (default: 8)")
    group.add_argument("--views", type=int, default=2, metavar="N", help="of each picture (default: 2)")
    group.add_argument(
        "--judge-steps",
        type=int,
        default=150,
        metavar="N",
        help="that a network is judged after (default: 150)",
    )
    group.add_argument("--train-device", default="auto", metavar="NAME", help="to search on (default: auto)")
    group.add_argument(
        "--cache", type=Path, metavar="DIR", help="of the teacher's answers (default: OUT/cache)"
    )
    group.add_argument(
        "--cache-form", choices=("half", "compact"), default="half", help="see `effsam distill`"
    )


def budget_of(text: str) -> tuple[float, str]:
    """Number and unit of a budget such as `15ms`, `15` or `300MMAC`.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d+\.?\d*)\s*(ms|mmacs?)?", text.strip(), re.IGNORECASE)
    if not found or float(found[1]) <= 0:
        raise UsageError(f"--budget is '{text}', expected a positive time such as 15ms, or 300MMAC.")
    return float(found[1]), "MMAC" if (found[2] or "").lower().startswith("mm") else "ms"
