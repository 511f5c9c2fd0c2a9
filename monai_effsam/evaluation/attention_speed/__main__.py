# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Speed and memory of local attention (MSA-Conv without its projections), as one page.

    python -m monai_effsam.evaluation.attention_speed --out docs/results/tic_speed.md

Everything runs on one thread and takes turns in one process, in the processor's time; peaks of memory are those of
processes of their own. `--device cuda` writes another page: the forms on a GPU, and what they are measured against.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_effsam.errors import UsageError

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monai_effsam.evaluation.attention_speed", description=__doc__
    )
    parser.add_argument(
        "--out", type=Path, help="FILE.md to write as well; FILE.json beside it holds the figures"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns that count (default 7)")
    parser.add_argument(
        "--windows", type=int, nargs="*", default=[3, 7], help="sides of windows (default 3 7)"
    )
    parser.add_argument(
        "--sides",
        type=int,
        nargs="*",
        default=[256, 512, 1024, 2048],
        help="sides of images for the trunk [px]",
    )
    parser.add_argument("--size", default="s", help="size of the trunk (default s)")
    parser.add_argument(
        "--side", type=int, default=128, help="side of the map of the operators (default 128)"
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="what to measure (default cpu)"
    )
    parser.add_argument("--batch", type=int, default=16, help="images of the maps on a GPU (default 16)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the page and tell it; the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        page, figures = _measured_on_gpu(args) if args.device == "cuda" else _measured(args)
    except UsageError as error:
        parser.error(str(error))
    if args.out:
        args.out.write_text(page, encoding="utf-8")
        args.out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(page)
    return 0


def _measured(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    import torch

    from monai_effsam.evaluation.attention_speed.areas import area_exponent, area_times
    from monai_effsam.evaluation.attention_speed.memory import own_process_peak_mib
    from monai_effsam.evaluation.attention_speed.operators import MODES, Shape, operator_times
    from monai_effsam.evaluation.attention_speed.page import speed_page
    from monai_effsam.evaluation.attention_speed.turns import limits
    from monai_effsam.evaluation.machine import machine_facts

    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape, reached = Shape(side=args.side), limits()
    rows = []
    for size in args.windows:
        for mode in MODES:
            row = operator_times(size, shape, mode, args.rounds, reached)
            row["extra_mib"] = {
                name: own_process_peak_mib(name, size, mode, shape) for name in ("local attention", "unfold")
            }
            rows.append(row)
    areas = area_times(args.sides, args.size, min(args.rounds, 3), largest_global=2048) if args.sides else {}
    names = list(next(iter(areas.values()))) if areas else []
    exponents = {
        name: area_exponent({side: times[name] for side, times in areas.items() if name in times})
        for name in names
        if len(areas) > 1
    }
    figures: dict[str, Any] = {
        "shape": shape._asdict(),
        "reached": reached._asdict(),
        "operators": rows,
        "areas": {str(side): times for side, times in areas.items()},
        "exponents": exponents,
        "size": args.size,
        "made_by": "python -m monai_effsam.evaluation.attention_speed",
        "machine": machine_facts(1),
    }
    return speed_page(figures), figures


def _measured_on_gpu(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    import torch

    from monai_effsam.evaluation.attention_speed.cuda import GpuShape, copy_rate, gpu_row
    from monai_effsam.evaluation.attention_speed.operators import MODES
    from monai_effsam.evaluation.attention_speed.page import gpu_page
    from monai_effsam.evaluation.machine import machine_facts

    if not torch.cuda.is_available():
        raise UsageError("--device is cuda, expected cpu where there is no CUDA device. Leave it out here.")
    torch.manual_seed(0)
    shape, rate = GpuShape(batch=args.batch, side=args.side), copy_rate("cuda")
    rows = [
        gpu_row(size, shape, mode, kind, args.rounds, rate)
        for size in args.windows
        for mode in MODES
        for kind in (torch.float32, torch.float16, torch.bfloat16)
    ]
    figures: dict[str, Any] = {
        "shape": shape._asdict(),
        "copy_rate": rate,
        "rows": rows,
        "gpu": torch.cuda.get_device_name(),
        "made_by": "python -m monai_effsam.evaluation.attention_speed --device cuda",
        "machine": machine_facts(torch.get_num_threads()),
    }
    return gpu_page(figures), figures


if __name__ == "__main__":
    raise SystemExit(main())
