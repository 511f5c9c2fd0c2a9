# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Judge a modality router: `python -m monai_effsam.evaluation.routing DATA -o OUT`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_effsam.data.io import write_bytes
from monai_effsam.errors import EffsamError
from monai_effsam.evaluation.routing.judging import COMMAND, judge_router, write_judgement
from monai_effsam.evaluation.routing.page import routing_charts

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 with one line on what is wrong."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Judge a modality router.")
    parser.add_argument("data", type=Path, help="folder of sets with targets.csv")
    parser.add_argument("-o", "--out", type=Path, required=True, help="gets router.json and router.md")
    parser.add_argument("--router", type=Path, help="bundle or run folder (default: the one that ships)")
    parser.add_argument(
        "--fold",
        type=Path,
        action="append",
        default=[],
        help="router trained without some sources; may be repeated",
    )
    parser.add_argument(
        "--sources", type=Path, metavar="DIR", help="clones of the repositories of other sources"
    )
    parser.add_argument("--write-docs", type=Path, metavar="FILE.md", help="also write the page here")
    args = parser.parse_args(words)
    try:
        judged = judge_router(args.data, args.router, args.fold, args.sources)
        page = write_judgement(judged, args.out)
        if args.write_docs:
            write_bytes(args.write_docs, page.encode())
            for name, chart in routing_charts(judged).items():
                write_bytes(args.write_docs.with_name(name), chart.encode())
    except EffsamError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
