# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The page that `python -m monai_effsam.evaluation.attention_speed` writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_effsam.reports.table_form import markdown_table

__all__ = ["gpu_page", "speed_page"]

_HOW = """Least times over all turns, in the processor's time; all operators of a row take turns. The limit is the \
larger of operations over {flops:.0f} GFLOP/s and bytes over {bytes:.1f} GB/s, both measured in the same run with a \
matrix product and a copy; each map is counted once for each time it must be read or written. Extra memory is the peak \
of a process of its own above what it held before the call."""


def speed_page(figures: Mapping[str, Any]) -> str:
    """Markdown with the tables of all figures.

    Args:
        figures: what the command measured, as in its JSON file.
    """
    shape, reached = figures["shape"], figures["reached"]
    machine, side = figures["machine"], shape["side"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    parts = [
        "# Speed of local attention",
        f"Made by `{figures['made_by']}`; not edited. {machine['machine']}, one thread, single precision. {versions}.",
        f"## Operators: {shape['channels']} channels, {shape['heads']} heads, {side} x {side}, one image",
        markdown_table(
            ["window", "mode", "local attention [ms]", "its limit [ms]", "unfold [ms]", "faster than unfold",
             "extra memory [MiB]", "of unfold [MiB]"],
            [_against_unfold(row) for row in figures["operators"]],
        ),
        markdown_table(
            ["window", "mode", "convolution [ms]", "its limit [ms]", "depthwise [ms]", "its limit [ms]",
             "local attention / convolution", "/ depthwise"],
            [_against_convolution(row) for row in figures["operators"]],
        ),
        _HOW.format(flops=reached["flops"] / 1e9, bytes=reached["bytes"] / 1e9),
    ]  # fmt: skip
    if figures["areas"]:
        parts += _areas(figures)
    return "\n\n".join(parts) + "\n"


_HOW_GPU = """Least times over all turns, between events in the GPU's queue, after its cache was cleared; all columns \
of a row take turns. The limit is what memory needs: each map counted once for each time it must be read or written, \
over {rate:.0f} GB/s of a copy in the same run. Window attention does not overlap: as many keys a query, but others. \
NATTEN's windows move inwards at the border. Both are given maps as they are, and put them in their order themselves."""


def gpu_page(figures: Mapping[str, Any]) -> str:
    """Markdown with the table of the figures that a GPU gave.

    Args:
        figures: what the command measured, as in its JSON file.
    """
    shape, machine, rows = figures["shape"], figures["machine"], figures["rows"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    names = list(rows[0]["ms"])
    maps = f"{shape['batch']} images of {shape['channels']} channels, {shape['side']} x {shape['side']}"
    table = [
        [
            f"{row['window']} x {row['window']}",
            row["mode"],
            row["kind"],
            f"{row['limit_ms']:.3f}",
            *(f"{row['ms'][name]:.3f}" for name in names),
            f"{min(names, key=row['ms'].__getitem__)}",
            f"{row['ms']['automatic'] / row['limit_ms']:.1f}",
        ]
        for row in rows
    ]
    heads = ["window", "mode", "format", "limit [ms]", *(f"{name} [ms]" for name in names)]
    parts = [
        "# Speed of local attention on a GPU",
        f"Made by `{figures['made_by']}`; not edited. {figures['gpu']}. {versions}.",
        f"## {maps}, {shape['heads']} heads",
        markdown_table([*heads, "fastest", "automatic / limit"], table),
        _HOW_GPU.format(rate=figures["copy_rate"] / 1e9),
    ]
    return "\n\n".join(parts) + "\n"


def _areas(figures: Mapping[str, Any]) -> list[str]:
    names = {
        "trunk": f"TiC-{figures['size']}, whole trunk [ms]",
        "local": "one local attention, stride 16 [ms]",
        "global": "global attention, same map [ms]",
    }
    rows = [
        [f"{side} x {side}", *(f"{times[name]:.1f}" if name in times else "-" for name in names)]
        for side, times in figures["areas"].items()
    ]
    if figures["exponents"]:
        rows.append(["exponent of the area", *(f"{figures['exponents'][name]:.2f}" for name in names)])
    return ["## Time against the area of the image", markdown_table(["image", *names.values()], rows)]


def _against_unfold(row: Mapping[str, Any]) -> list[str]:
    extra = ("-" if one is None else f"{one:.0f}" for one in row["extra_mib"].values())
    ms, limit = row["ms"], row["limit_ms"]
    return [
        f"{row['window']} x {row['window']}",
        row["mode"],
        f"{ms['local attention']:.1f}",
        f"{limit['local attention']:.1f}",
        f"{ms['unfold']:.0f}",
        f"{row['faster_than_unfold']:.1f}",
        *extra,
    ]


def _against_convolution(row: Mapping[str, Any]) -> list[str]:
    ms, limit = row["ms"], row["limit_ms"]
    kinds = [f"{of[kind]:.1f}" for kind in ("convolution", "depthwise convolution") for of in (ms, limit)]
    ratios = [f"{row['slower_than_convolution']:.1f}", f"{row['slower_than_depthwise']:.1f}"]
    return [f"{row['window']} x {row['window']}", row["mode"], *kinds, *ratios]
